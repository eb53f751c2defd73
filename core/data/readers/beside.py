"""Read images with the labels and splits that their folders, and tables and lists beside them, give."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from core.data.archive import Tree
from core.data.decode import UnreadableError
from core.data.listing import Listing
from core.data.readers.common import NO_TABLE, ReadOptions, format_names, split_word, words_of
from core.data.readers.folder import folder_listing, images_in
from core.data.readers.label_rows import ImageSearch, LabelRow, find_columns, label_rows
from core.data.readers.layout import Layout, LayoutError, Row, infer_layout, row_order
from core.data.readers.manifest import Located, is_table, read_manifest, table_listing
from core.data.readers.split_lists import apply_lists, lists_in_tree
from core.data.readers.tables import PATH_NAMES, Table, decode_text, read_table
from core.runtime.errors import UserError
from core.runtime.progress import format_count

_MAX_TABLES = 20
"""Tables that are looked at; more of them are rather one per image."""
_MAX_DEPTH = 3
_SAMPLED_ROWS = 200
_RESOLVED = 0.5
"""Share of a table's rows that must name images."""
_PATH_WORDS = {"image", "img", "file", "path", "photo", "picture", "id"}
_CUB_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def read_images_and_tables(tree: Tree, options: ReadOptions) -> Listing:
    """Read a folder or zip archive of images, taking their classes from folders, from tables beside them, or from both.

    Tables are csv, tsv, parquet and JSON Lines files, the text files of CUB-200-2011, the annotations of tiny-imagenet
    and lists such as ``train.txt``. Where folders and tables give different classes, neither is chosen.

    Raises:
        UserError: there are no images; neither folders nor tables give their classes; or both do and disagree.
    """
    if options.table not in (None, NO_TABLE):
        if options.class_levels:
            raise UserError("--class-level is for folders and --table for tables.", "Give one of the two.")
        return read_manifest(tree.path, options)
    path, images = tree.path, images_in(tree)
    layout: Layout | LayoutError
    try:
        layout = infer_layout(images, str(path), options.class_levels)
    except LayoutError as error:
        if options.class_levels:
            raise
        layout = error
    ignores_tables = options.table == NO_TABLE or options.class_levels is not None
    found = Labels() if ignores_tables else find_labels(tree, options.encoding)
    if options.encoding and not found.files:
        raise UserError(f"{path} has no table whose text --encoding could be for.", "Omit --encoding.")
    if isinstance(layout, LayoutError):
        if not found.has_labels:
            raise LayoutError(layout.what, " ".join([*found.notes, layout.fix]))
        labelled = [(row, name) for row, name in zip(found.rows, found.names, strict=True) if row.label]
        if len({row.label for row, _ in labelled}) < 2:
            raise LayoutError(layout.what, f"{found.files[0]} has a single class. {layout.fix}")
        rows, names = zip(*labelled, strict=True)
        return table_listing(tree, rows, [Located(name) for name in names], found.notes, found.files)
    layout, groups, notes = _combine(layout, found, tree)
    listing = folder_listing(tree, layout, (*found.notes, *notes), groups, found.files)
    if options.splits is not None or ignores_tables or any(row.split for row in layout.rows):
        return listing
    lists = lists_in_tree(tree, layout.root, {row.name for row in layout.rows})
    return apply_lists(listing, lists) if lists else listing


@dataclass
class Labels:
    """The labels and splits that tables give to images.

    Attributes:
        rows, names: Rows of all tables, and the file that each names.
        files: Names of the tables that were read.
        notes: Sentences on the tables, also on those that are not used.
    """

    rows: list[LabelRow] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def has_labels(self) -> bool:
        """Return whether any row gives a label rather than only a split."""
        return any(row.label for row in self.rows)


def find_labels(tree: Tree, encoding: str | None) -> Labels:
    """Find the tables in ``tree`` that give labels or splits to its images.

    Raises:
        UserError: two tables give different labels to one image.
    """
    labels = Labels()
    search = ImageSearch(tree.files)
    known = set(tree.files)
    row_of: dict[str, LabelRow] = {}
    for read, files in _candidates(tree, encoding, labels.notes):
        try:
            table = read()
            rows, names, notes = _resolve(table, search, known)
        except (UserError, UnreadableError) as error:
            what = error.what if isinstance(error, UserError) else f"{files[0]}: {error}."
            labels.notes.append(f"Not used: {what}")
            continue
        for row, name in zip(rows, names, strict=True):
            first = row_of.setdefault(name, row)
            if first is row:
                continue
            if row.label and first.label and row.label != first.label:
                raise UserError(
                    f"{row.place}: {name!r} is {row.label!r}, but {first.label!r} in {first.place}.",
                    "Choose the table with --table, or --table none to use the folders.",
                )
            row_of[name] = first._replace(label=first.label or row.label, split=first.split or row.split)
        labels.files += files
        labels.notes += notes
    labels.names, labels.rows = list(row_of), list(row_of.values())
    return labels


def _candidates(tree: Tree, encoding: str | None, notes: list[str]) -> Iterator[tuple[Callable[[], Table], list[str]]]:
    """Yield a function that reads each table, with the files it reads; explain in ``notes`` what is not looked at."""
    folders = {name.rpartition("/")[0] for name in tree.files if name.rpartition("/")[2] == _CUB_FILES[0]}
    for folder in sorted(folders):
        files = [f"{folder}/{name}".lstrip("/") for name in _CUB_FILES]
        present = [name for name in files if name in set(tree.files)]
        if files[1] in present:
            yield partial(_read_cub, tree, files, present, encoding), present
    tables = [name for name in tree.files if is_table(name)]
    near = [name for name in tables if name.count("/") < _MAX_DEPTH]
    if len(near) > _MAX_TABLES:
        notes.append(f"{format_count(len(tables), 'table')} are not looked at: {format_names(tables)}.")
        near = []
    submissions = [name for name in near if "submission" in name.lower()]
    if submissions:
        notes.append(f"Not used, as a table to submit predictions: {format_names(submissions)}.")
    for name in near:
        if name not in submissions:
            yield partial(read_table, tree, name, encoding), [name]
    for name in tree.files:
        file = name.rpartition("/")[2].lower()
        if file == "val_annotations.txt":
            yield partial(_read_annotations, tree, name, encoding), [name]
        elif file.endswith(".txt") and split_word(file[:-4]) and name.count("/") < _MAX_DEPTH:
            yield partial(_read_list, tree, name, encoding), [name]


def _text_lines(tree: Tree, name: str, encoding: str | None) -> list[tuple[str, str]]:
    """Return the place and the text of every line that is not empty."""
    text = decode_text(tree.read(name), name, encoding)
    return [(f"{name}, line {number}", line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _read_pairs(tree: Tree, name: str, encoding: str | None) -> dict[str, tuple[str, str]]:
    """Return, by the number that begins every line, its place and the rest of it."""
    pairs = {}
    for place, line in _text_lines(tree, name, encoding):
        number, _, value = line.strip().partition(" ")
        if not value.strip():
            raise UserError(f"{place} is not a number and a value: {line[:80]!r}.", "Use the published files.")
        pairs[number] = place, value.strip()
    return pairs


def _read_cub(tree: Tree, files: list[str], present: list[str], encoding: str | None) -> Table:
    """Read the text files of CUB-200-2011 (Wah et al. 2011), which give numbers to images and classes."""
    images, labels, parts, classes = (_read_pairs(tree, name, encoding) if name in present else {} for name in files)
    columns: dict[str, list[str]] = {"path": [], "label": []}
    if parts:
        columns["split"] = []
    places = []
    for number, (place, path) in images.items():
        if number not in labels or (parts and number not in parts):
            raise UserError(f"{place}: image {number} is not in {files[1 if number not in labels else 2]}.", "")
        label = labels[number][1]
        columns["path"].append(path)
        columns["label"].append(classes[label][1] if label in classes else label)
        if parts:
            columns["split"].append("train" if parts[number][1] == "1" else "test")
        places.append(place)
    return Table(files[0], columns, places)


def _read_annotations(tree: Tree, name: str, encoding: str | None) -> Table:
    """Read the annotations of tiny-imagenet: file, class and box, separated by tabs."""
    rows = [(place, line.split("\t")) for place, line in _text_lines(tree, name, encoding)]
    if bad := next((place for place, values in rows if len(values) < 2), ""):
        raise UserError(f"{bad} is not a file name and a class, separated by a tab.", "Use the published file.")
    split = split_word(name.split("/")[-2]) if "/" in name else "val"
    columns = {"path": [values[0] for _, values in rows], "label": [values[1] for _, values in rows]}
    return Table(name, columns | {"split": [split or "val"] * len(rows)}, [place for place, _ in rows])


def _read_list(tree: Tree, name: str, encoding: str | None) -> Table:
    """Read a list of images, one per line, each perhaps followed by the number of its class."""
    rows = [(place, re.fullmatch(r"(.*?)(?:\s+(\d+))?\s*", line)) for place, line in _text_lines(tree, name, encoding)]
    columns = {"path": [match[1] if match else "" for _, match in rows]}
    labels = [match[2] if match and match[2] else "" for _, match in rows]
    if all(labels):
        columns["label"] = labels
    return Table(name, columns | {"split": [split_word(Path(name).stem)] * len(rows)}, [place for place, _ in rows])


def _resolve(table: Table, search: ImageSearch, known: set[str]) -> tuple[list[LabelRow], list[str], list[str]]:
    """Return the rows of a table that name images, the file of each, and notes.

    Raises:
        UserError: the table names no images, or has no labels and no splits.
    """
    folder = table.name.rpartition("/")[0]
    own_split = split_word(Path(table.name).stem) or (split_word(folder.rpartition("/")[2]) if folder else "")

    def find(path: str, label: str = "", split: str = "") -> str | None:
        exact = "/".join(part for part in (*folder.split("/"), *path.strip().split("/")) if part not in ("", "."))
        return exact if exact in known else search.find(path.strip(), label, split or own_split)

    def is_path(column: str) -> bool:
        values = [value for value in table.columns[column] if value.strip()][:_SAMPLED_ROWS]
        is_named = column in usual or not _PATH_WORDS.isdisjoint(words_of(column))
        if not is_named and all(value.strip().isdecimal() for value in values):  # numbers of anything
            return False
        return sum(find(value) is not None for value in values) >= _RESOLVED * len(values)

    usual = table.find(PATH_NAMES)
    paths = [column for column in (*usual, *(one for one in table.columns if one not in usual)) if is_path(column)]
    if not paths:
        described = f"{table.description} names no images that are here."
        raise UserError(described, "Its column of paths must be relative to its folder.")
    notes: list[str] = []
    try:
        columns, notes = find_columns(table, paths)
    except UserError:
        if not own_split and "split" not in table.columns:
            raise
        values = table.columns.get("split", [own_split] * len(table.places))
        triples = zip(table.places, table.columns[paths[0]], values, strict=True)
        rows = [LabelRow(place, path.strip(), "", split_word(split), "", "") for place, path, split in triples]
    else:
        rows, changes = label_rows(table, columns, own_split)
        notes += changes
    found = [find(row.path, row.label, row.split) for row in rows]
    missing = [row.path for row, name in zip(rows, found, strict=True) if name is None]
    if missing:
        notes.append(f"{table.name}: {format_count(len(missing), 'row')} without an image: {format_names(missing)}.")
    pairs = [(row, name) for row, name in zip(rows, found, strict=True) if name is not None]
    return [row for row, _ in pairs], [name for _, name in pairs], notes


def _combine(layout: Layout, labels: Labels, tree: Tree) -> tuple[Layout, list[str], list[str]]:
    """Return the layout with the splits, groups and further labelled images of tables, its groups, and notes.

    Raises:
        UserError: the tables give other classes than the folders.
    """
    if not labels.rows:
        return layout, [], []
    row_of = dict(zip(labels.names, labels.rows, strict=True))
    name_of = _check_agreement(layout, row_of, labels, tree)
    tables = ", ".join(labels.files)
    notes = [f"Also read: {tables}."]
    has_splits = any(row.split for row in layout.rows)
    rows = [
        row if has_splits or row.file not in row_of else row._replace(split=row_of[row.file].split)
        for row in layout.rows
    ]
    known = {row.file for row in rows}
    further = [
        Row(file, name_of.get(row.label, row.label), row.split or _split_of_folder(file, layout))
        for file, row in row_of.items()
        if file not in known and row.label
    ]
    added = {row.file for row in further}
    if further:
        notes.append(f"{format_count(len(further), 'image')} outside class folders: their classes are from {tables}.")
    remaining = {why: [file for file in files if file not in added] for why, files in layout.left_out.items()}
    left_out: Mapping[str, list[str]] = {why: files for why, files in remaining.items() if files}
    rows = sorted([*rows, *further], key=row_order)
    groups = [row_of[row.file].group if row.file in row_of else "" for row in rows]
    return replace(layout, rows=rows, left_out=left_out), groups, notes


def _split_of_folder(file: str, layout: Layout) -> str:
    for split, folders in layout.split_folders.items():
        if any(file.startswith(layout.root + folder) for folder in folders):
            return split
    return ""


def _check_agreement(layout: Layout, row_of: dict[str, LabelRow], labels: Labels, tree: Tree) -> dict[str, str]:
    """Return the class folder of each label; raise UserError if the two do not correspond one to one."""
    both = [(row, row_of[row.file].label) for row in layout.rows if row.file in row_of and row_of[row.file].label]
    pairs = {(row.name, label) for row, label in both}
    names, texts = {name for name, _ in pairs}, {label for _, label in pairs}
    if len(names) == len(texts) == len(pairs):
        return {label: name for name, label in pairs}
    row, label = next(((row, label) for row, label in both if row.name != label), both[0])
    raise UserError(
        f"The folders of {tree.path} give these images {format_count(len(names), 'class', 'classes')} "
        f"({format_names(sorted(names))}), but {', '.join(labels.files)} {len(texts):,} "
        f"({format_names(sorted(texts))}); for example {row.file!r} is {label!r} there.",
        f"Choose with --table {','.join(filter(is_table, labels.files)) or '...'}, or --table none for the folders.",
    )
