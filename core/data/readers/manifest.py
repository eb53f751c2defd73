"""Read a csv or parquet table of images and labels, with the images beside it or in the same zip archive."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.data.archive import FolderTree, Tree, open_tree
from core.data.decode import Raw, UnreadableError
from core.data.listing import Listing, make_table
from core.data.readers.common import (
    SPLIT_WORDS,
    ReadOptions,
    column_values,
    format_names,
    is_image,
    is_text,
    source_name,
    value_type,
)
from core.runtime.errors import UserError
from core.runtime.progress import format_count

COLUMNS = ("path", "label", "split", "group", "id")
PATH_NAMES = ("path", "filename")
SUFFIXES = (".csv", ".parquet")
MAX_ROWS = 10_000_000
MAX_TABLE_BYTES = 2_000_000_000
_COLUMNS_HELP = "The columns are path and label, and optionally split (train, val, test), group and id."
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")  # includes Windows paths
_PATH_FIX = "Put the table beside or above its images and use paths relative to its folder."


def read_manifest(path: Path, options: ReadOptions) -> Listing:
    """Read a table with columns ``path,label`` and optionally ``split``, ``group``, ``id``.

    The column ``path`` may also be called ``filename``.

    Paths are relative to the table. ``path`` may be the table itself, or a folder or zip that contains exactly this one
    table. Rows are in the order of the table; ids come from the column ``id``, else from the paths. A missing file
    counts as an unreadable image, unless all files are missing.

    Raises:
        UserError: names the line of a csv, or the row of a parquet counted from 1, and the column.
    """
    is_local = path.suffix.lower() in SUFFIXES
    if is_local and not path.is_file():
        raise UserError(f"{path} {'is a folder' if path.exists() else 'does not exist'}.", "Check the path.")
    # A folder lists nothing until all file names are requested.
    tree: Tree = FolderTree(path.parent) if is_local else open_tree(path)
    inner = path.name if is_local else _find_table(tree, path)
    rows = _read_rows(tree, inner, options.encoding)
    files = _Files(tree, inner, is_local)
    names = [files.name(row) for row in rows]
    sizes = [files.size_and_time(name) for name in names]
    missing = [name for name, size in zip(names, sizes, strict=True) if size is None]
    if len(missing) == len(names):
        raise UserError(
            f"None of the {format_count(len(names), 'file')} listed in {inner} exists; the first is {names[0]!r}.",
            f"Paths are relative to the folder of {inner}.",
        )
    notes = []
    if missing:
        notes.append(f"{format_count(len(missing), 'file')} of {len(names):,} missing: {format_names(missing)}.")
    ids = [row.id or name for row, name in zip(rows, names, strict=True)]
    if is_local and any(map(_ABSOLUTE.match, ids)):
        notes.append("Some ids are absolute paths, which differ between machines: add a column id.")
    _check_duplicates(ids, rows, inner)

    def read(position: int) -> Raw:
        if sizes[position] is None:
            raise UnreadableError("the file is missing")
        return tree.read(names[position])

    table = make_table(ids, [row.label for row in rows], [row.split for row in rows], [row.group for row in rows])
    own_stamp = [inner, *(files.size_and_time(inner) or ()), [list(size or ()) for size in sizes]]
    return Listing(source_name(path), table, read, own_stamp if is_local else tree.stamp(), notes=tuple(notes))


class _Row(NamedTuple):
    place: str  # "mine.csv, line 7"
    path: str
    label: str
    split: str
    group: str
    id: str


def _find_table(tree: Tree, path: Path) -> str:
    tables = [name for name in tree.files if name.lower().endswith(SUFFIXES)]
    if len(tables) == 1:
        return tables[0]
    found = f"found: {format_names(tables)}" if tables else "there is none"
    raise UserError(f"{path} must contain one table of images, csv or parquet; {found}.", "Import the table itself.")


def has_manifest(tree: Tree) -> bool:
    """Return whether a folder or archive is for :func:`read_manifest`: images and one table with its columns."""
    tables = [name for name in tree.files if name.lower().endswith(SUFFIXES)]
    if len(tables) != 1 or not any(is_image(name) for name in tree.files):
        return False
    if tables[0].lower().endswith(".parquet"):
        return True
    try:
        first = tree.read(tables[0]).split(b"\n", 1)[0].replace(b"\0", b"").lower()
    except UnreadableError:
        return False
    return b"label" in first and any(word.encode() in first for word in PATH_NAMES)


def _read_rows(tree: Tree, name: str, encoding: str | None) -> list[_Row]:
    try:
        content = tree.read(name)
    except UnreadableError as unreadable:
        raise UserError(f"{name} cannot be read: {unreadable}.", "Check the file.") from unreadable
    if name.lower().endswith(".parquet"):
        columns, places = _read_parquet(content, name)
    else:
        columns, places = _read_csv(_decode_text(content, name, encoding), name)
    if not places:
        raise UserError(f"{name} has no rows.", _COLUMNS_HELP)
    values = [columns.get(column, [""] * len(places)) for column in COLUMNS]
    rows = []
    for place, path, label, split, group, image_id in zip(places, *values, strict=True):
        for column, value in (("path", path), ("label", label)):
            if not value.strip():
                raise UserError(f"{place}: {column} is empty.", "Fill it in or delete the row.")
        if "id" in columns and not image_id.strip():
            raise UserError(f"{place}: id is empty.", "Fill it in, or delete the column.")
        if split.strip() and split.strip().lower() not in SPLIT_WORDS:
            raise UserError(f"{place}: split is {split[:80]!r}.", "Use train, val or test, or leave it empty.")
        rows.append(_Row(place, path, label, SPLIT_WORDS.get(split.strip().lower(), ""), group, image_id))
    return rows


def _canonical_columns(names: Sequence[str], name: str) -> list[str]:
    """Return the canonical column names; unknown columns keep their names and are ignored."""
    plain = [str(column).strip().lower() for column in names]
    if "path" not in plain:
        plain = ["path" if column == "filename" else column for column in plain]
    for column in ("path", "label"):
        if column not in plain:
            shown = format_names(names, 10)
            raise UserError(f"{name} has no column {column}; its columns are {shown}.", _COLUMNS_HELP)
    if duplicates := [column for column in COLUMNS if plain.count(column) > 1]:
        raise UserError(f"{name} has the column {duplicates[0]} twice.", "Keep one of them.")
    return plain


def _decode_text(content: bytes, name: str, encoding: str | None) -> str:
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    codec = encoding or ("utf-16" if is_utf16 else "utf-8-sig")
    try:
        text = content.decode(codec)
    except LookupError as error:
        raise UserError(f"There is no encoding {encoding!r}.", "Try utf-8, utf-16, cp1252 or latin-1.") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        shown = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16"}.get(codec, codec)
        raise UserError(
            f"{name}, line {line} is not {shown} text (byte {content[error.start]:#04x}).",
            "Save the file as UTF-8, or specify its encoding with --encoding, for example --encoding cp1252.",
        ) from error
    except UnicodeError as error:
        raise UserError(f"{name} is not {codec} text: {error}.", "Save the file as UTF-8.") from error
    if "\0" in text:
        raise UserError(f"{name} contains NUL characters.", "Save the file as UTF-8, or specify --encoding.")
    return text.removeprefix("\ufeff")


def _read_csv(text: str, name: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return the columns and an error label for each row; the separator is a comma, semicolon or tab."""
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    rows: list[list[str]] = []
    places = []
    try:
        header = _canonical_columns(next(reader, []), name)
        line = reader.line_num
        for row in reader:
            place, line = f"{name}, line {line + 1}", reader.line_num  # a quoted row may span several lines
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{place} has {format_count(len(row), 'field')}, but there are {len(header)} columns.",
                    "Put values with commas in quotes.",
                )
            rows.append(row)
            places.append(place)
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num} cannot be read: {error}.", "Correct the quotes.") from error
    if len(rows) > MAX_ROWS:
        raise UserError(f"{name} has {len(rows):,} rows.", f"The maximum is {MAX_ROWS:,}.")
    return {column: list(values) for column, values in zip(header, zip(*rows, strict=True), strict=False)}, places


def _read_parquet(content: bytes, name: str) -> tuple[dict[str, list[str]], list[str]]:
    try:
        schema = pq.read_schema(pa.BufferReader(content))
        shared = [field.name for field in schema if is_text(field.type)]
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=shared)
        count = file.metadata.num_rows
        size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
        if count > MAX_ROWS or size > MAX_TABLE_BYTES:
            what = f"{name} has {count:,} rows and {size:,} bytes."
            raise UserError(what, f"The maximum is {MAX_ROWS:,} rows and {MAX_TABLE_BYTES:,} bytes.")
        names = file.schema_arrow.names
        columns = {}
        for original, column in zip(names, _canonical_columns(names, name), strict=True):
            if column in COLUMNS:
                columns[column] = _text_values(file.read([original]).column(original), name, column)
                if len(columns[column]) != count:
                    raise pa.ArrowInvalid(f"it declares {count:,} rows, but {original!r} has {len(columns[column]):,}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is damaged or not a parquet file: {str(error)[:200]}.", "Write it again.") from error
    return columns, [f"{name}, row {number}" for number in range(1, count + 1)]


def _text_values(column: pa.ChunkedArray, name: str, shown: str) -> list[str]:
    kind = value_type(column.type)
    if not (is_text(kind) or pa.types.is_integer(kind)):
        raise UserError(f"{name}: the column {shown} has type {kind}.", "Store it as text or whole numbers.")
    column.validate(full=True)  # dictionary indices of an untrusted file may be out of range
    return ["" if value is None else str(value) for value in column_values(column)]


class _Files:
    """A lookup of the images that a table names."""

    def __init__(self, tree: Tree, table: str, is_local: bool) -> None:
        self._tree, self._is_local = tree, is_local
        self._folder = table.rpartition("/")[0]
        self._known = set() if is_local else set(tree.files)

    def name(self, row: _Row) -> str:
        """Return an image's name in the tree; an absolute path outside the folder stays absolute."""
        if "\0" in row.path:
            raise UserError(f"{row.place}: path contains a NUL character.", "Correct it.")
        slashed = row.path.replace("\\", "/")
        if ".." in slashed.split("/"):
            raise UserError(f"{row.place}: path {row.path[:200]!r} leads outside the folder of the table.", _PATH_FIX)
        if _ABSOLUTE.match(row.path):
            if not self._is_local:
                raise UserError(f"{row.place}: path {row.path[:200]!r} is absolute.", _PATH_FIX)
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


def _check_duplicates(ids: list[str], rows: list[_Row], name: str) -> None:
    first_rows: dict[str, _Row] = {}
    for image_id, row in zip(ids, rows, strict=True):
        first = first_rows.setdefault(image_id, row)
        if first is not row:
            raise UserError(
                f"{row.place}: the {'id' if row.id else 'path'} {image_id[:200]!r} occurs already in "
                f"{first.place.removeprefix(f'{name}, ')}.",
                "Keep one of the rows, or add a column id.",
            )
