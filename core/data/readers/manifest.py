"""Read tables of images and labels, with the images beside them or in the same zip archive."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.data.archive import FolderTree, Tree, file_stamp, open_tree
from core.data.decode import Raw, UnreadableError
from core.data.listing import Listing, make_table
from core.data.readers.common import ReadOptions, is_image, source_name, split_word
from core.data.readers.image_search import WHOLE_PATH, ImageSearch, has_folder
from core.data.readers.label_columns import choose_path_column, find_columns, with_one_hot_labels
from core.data.readers.label_rows import LabelRow, label_rows
from core.data.readers.tables import PATH_NAMES, Table, is_table, read_table
from core.runtime.errors import UserError
from core.runtime.progress import format_count, format_names, left_out_note
from core.runtime.reading import check_input
from core.runtime.roots import is_below_roots

_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")  # includes Windows paths
_PATH_FIX = "Put the table beside or above its images and use paths relative to its folder."


def read_manifest(path: Path, options: ReadOptions) -> Listing:
    """Read a table with columns ``path,label`` and optionally ``split``, ``group``, ``id``.

    The columns may have other usual names (:data:`core.data.readers.tables.PATH_NAMES` and the like). Paths are
    relative to the table. ``path`` may be the table itself, or a folder or zip archive that contains the tables
    ``options.table`` or, by default, exactly one. Rows are in the order of the table; ids come from the column ``id``,
    else from the paths. Names without a folder are looked for in all folders below the table, as are all paths if none
    exists; any other missing file counts as an unreadable image.

    Raises:
        UserError: names the line of a text file, or the row of a parquet file counted from 1, and the column.
    """
    is_local = is_table(path.name)
    if is_local:
        check_input(path)
    if is_local and options.table:
        raise UserError(f"{path} is a table itself.", "Omit --table.")
    # A folder lists nothing until all file names are requested.
    tree: Tree = FolderTree(path.parent) if is_local else open_tree(path)
    tables = [path.name] if is_local else _named_tables(tree, path, options.table)
    images: list[Located] = []
    rows: list[LabelRow] = []
    notes: list[str] = []
    if options.encoding and all(inner.lower().endswith(".parquet") for inner in tables):
        raise UserError(f"{format_names(tables)} has no text whose encoding could be given.", "Omit --encoding.")
    for inner in tables:
        table = read_table(tree, inner, options.encoding)
        path_column = _path_column(table, tree, is_local)
        table = with_one_hot_labels(table, path_column or "")
        columns, choices = find_columns(table, path_column or "")
        split = split_word(Path(inner).stem) if len(tables) > 1 else ""
        found, changes = label_rows(table, columns, split)
        rows += found
        notes += [*choices, *changes]
        images += _locate(found, inner, tree, is_local, notes)
    if not is_local:
        notes.insert(0, f"Classes are from {', '.join(tables)}.")
    return table_listing(tree, rows, images, notes, tables, path.name if is_local else "")


class Located(NamedTuple):
    """A file that a table names, with its size and modification time, which are None if there is no such file."""

    name: str
    size_and_time: tuple[int, int] | None = (0, 0)


def table_listing(
    tree: Tree,
    rows: Sequence[LabelRow],
    images: Sequence[Located],
    notes: Sequence[str],
    tables: Sequence[str],
    own: str = "",
) -> Listing:
    """Return the listing of the images that tables name.

    Args:
        images: The file of every row.
        tables: Names of the tables.
        own: The table, if it was given by itself, so that the files around it are not listed.
    """
    missing = [image.name for image in images if image.size_and_time is None]
    notes = list(notes)
    if missing:
        notes.append(f"{format_count(len(missing), 'file')} of {len(images):,} missing: {format_names(missing)}.")
    ids = [row.id or image.name for row, image in zip(rows, images, strict=True)]
    if own and any(map(_ABSOLUTE.match, ids)):
        notes.append("Some ids are absolute paths, which differ between machines: add a column id.")
    _check_duplicates(ids, rows)
    if not own and (unlisted := sorted(set(filter(is_image, tree.files)) - {image.name for image in images})):
        notes.append(left_out_note(unlisted, "image", f"not in {format_names(tables)}"))

    def read(position: int) -> Raw:
        if images[position].size_and_time is None:
            raise UnreadableError("the file is missing")
        return tree.read(images[position].name)

    listed = make_table(ids, [row.label for row in rows], [row.split for row in rows], [row.group for row in rows])
    own_stamp = [*file_stamp(tree.path / own), [image.size_and_time for image in images]] if own else []
    stamp = own_stamp or tree.stamp()
    return Listing(source_name(tree.path / own), listed, read, stamp, notes=tuple(notes))


def _named_tables(tree: Tree, path: Path, option: str | None) -> list[str]:
    tables = list(filter(is_table, tree.files))
    if option:
        names = [name.strip() for name in option.split(",")]
        chosen = []
        for name in names:
            matches = [name] if name in tables else [one for one in tables if one.endswith(f"/{name}")]
            if not matches:
                there = f"there are {format_names(tables)}" if tables else "there are no tables"
                raise UserError(f"{path} has no table {name!r}; {there}.", "Name one of its tables with --table.")
            if len(matches) > 1:
                what = f"{path} has several tables {name!r}: {format_names(matches)}."
                raise UserError(what, f"Name the right ones with their folders: --table {','.join(matches)}.")
            chosen += matches
        return chosen
    if len(tables) == 1:
        return tables
    found = f"found: {format_names(tables)}" if tables else "there is none"
    raise UserError(
        f"{path} must contain one table of images (csv, tsv, parquet or jsonl); {found}.",
        "Name it with --table." if tables else "Import the table itself.",
    )


def _path_column(table: Table, tree: Tree, is_local: bool) -> str | None:
    """Return the column whose values name images, or None if none does."""
    folder = table.name.rpartition("/")[0]
    if is_local:
        files = _Files(tree, table.name, is_local)

        def exists(path: str) -> int:
            try:
                return WHOLE_PATH * (files.size_and_time(files.name(LabelRow("", path.strip()))) is not None)
            except UserError:  # a path outside the folder, which is reported with its row
                return 0

        if column := choose_path_column(table, exists):
            return column
        if table.find(PATH_NAMES)[:1] == table.find(("path",)):
            return None  # named as documented: missing files are reported
    search = ImageSearch(tree.files)
    return choose_path_column(table, lambda path: search.quality(path, folder))


def _locate(rows: Sequence[LabelRow], table: str, tree: Tree, is_local: bool, notes: list[str]) -> list[Located]:
    """Return the file of every row of a table."""
    files = _Files(tree, table, is_local)
    images = [Located(name, files.size_and_time(name)) for name in map(files.name, rows)]
    exists = [image.size_and_time is not None for image in images]
    if all(exists) or (is_local and any(exists)):  # the folder of a table may be a large one
        return images
    search, has_exact = ImageSearch(tree.files), any(exists)
    # A path with folders whose file is missing must not take another file of this name.
    found = [
        None if is_there or (has_exact and has_folder(row.path)) else search.find(row.path, row.label, row.split)
        for row, is_there in zip(rows, exists, strict=True)
    ]
    if not any(found):
        if any(exists):
            return images
        count, first = format_count(len(images), "file"), images[0].name
        raise UserError(
            f"None of the {count} listed in {table} exists; the first is {first!r}.",
            f"Paths are relative to the folder of {table}.",
        )
    example = next((row.path, name) for row, name in zip(rows, found, strict=True) if name)
    notes.append(f"The images of {table} are found by their names: {example[0]!r} is {example[1]!r}.")
    return [
        Located(name, files.size_and_time(name)) if name else image for name, image in zip(found, images, strict=True)
    ]


class _Files:
    """A lookup of the images that a table names."""

    def __init__(self, tree: Tree, table: str, is_local: bool) -> None:
        self._tree, self._is_local = tree, is_local
        self._folder = table.rpartition("/")[0]
        self._known = set() if is_local else set(tree.files)

    def name(self, row: LabelRow) -> str:
        """Return an image's name in the tree; an absolute path outside the folder stays absolute."""
        if "\0" in row.path:
            raise UserError(f"{row.place}: path contains a NUL character.", "Correct it.")
        slashed = row.path.replace("\\", "/")
        if ".." in slashed.split("/"):
            raise UserError(f"{row.place}: path {row.path[:200]!r} leads outside the folder of the table.", _PATH_FIX)
        if _ABSOLUTE.match(row.path):
            if not self._is_local:
                raise UserError(f"{row.place}: path {row.path[:200]!r} is absolute.", _PATH_FIX)
            if not is_below_roots(Path(row.path)):
                what = f"{row.place}: path {row.path[:200]!r} is outside the folders that the dashboard may read."
                raise UserError(what, _PATH_FIX)
            folder = self._tree.path.absolute().as_posix().rstrip("/") + "/"
            return row.path.removeprefix(folder)
        as_written = self._below(row.path)
        is_from_windows = "\\" in row.path and self.size_and_time(as_written) is None
        return self._below(slashed) if is_from_windows else as_written

    def _below(self, path: str) -> str:
        plain = "/".join(part for part in path.split("/") if part not in ("", ".")) or "."
        return f"{self._folder}/{plain}" if self._folder else plain

    def size_and_time(self, name: str) -> tuple[int, int] | None:
        """Return the size and modification time of a file ((0, 0) in an archive), or None if there is no such file."""
        if not self._is_local:
            return (0, 0) if name in self._known else None
        try:
            status = os.stat(os.path.join(self._tree.path, name))  # noqa: PTH116, PTH118 - faster, and called for every row
        except (OSError, ValueError):  # invalid file names
            return None
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _check_duplicates(ids: Sequence[str], rows: Sequence[LabelRow]) -> None:
    first_rows: dict[str, LabelRow] = {}
    for image_id, row in zip(ids, rows, strict=True):
        first = first_rows.setdefault(image_id, row)
        if first is not row:
            table = row.place.rpartition(", ")[0]
            raise UserError(
                f"{row.place}: the {'id' if row.id else 'path'} {image_id[:200]!r} occurs already in "
                f"{first.place.removeprefix(f'{table}, ')}.",
                "Keep one of the rows, or add a column id.",
            )
