"""Read images with the labels and splits that their folders, and tables and lists beside them, give."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from core.data.archive import Tree
from core.data.decode import UnreadableError
from core.data.listing import Listing
from core.data.readers.common import NO_TABLE, ReadOptions, format_names, split_word, words_of
from core.data.readers.folder import folder_listing, images_in, layout_of
from core.data.readers.label_rows import (
    ImageSearch,
    LabelRow,
    choose_path_column,
    find_columns,
    label_rows,
    with_one_hot_labels,
)
from core.data.readers.layout import Layout, LayoutError, Row, row_order
from core.data.readers.manifest import Located, is_table, read_manifest, table_listing
from core.data.readers.split_lists import apply_lists, lists_in_tree
from core.data.readers.tables import Table, decode_text, read_table
from core.runtime.errors import UserError
from core.runtime.progress import format_count

_MAX_TABLES = 20
"""Tables that are looked at; more of them are rather one per image."""
_MAX_DEPTH = 6
_LABEL_FILES = (".xlsx", ".xls", ".ods", ".json", ".xml", ".lst", ".mat", ".txt")
"""Endings of files that may hold labels."""
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
        layout = layout_of(tree, images, options)
    except LayoutError as error:
        if options.class_levels:
            raise
        layout = error
    ignores_tables = options.table == NO_TABLE or options.class_levels is not None
    found = Labels() if ignores_tables else find_labels(tree, options.encoding)
    if options.encoding and all(name.lower().endswith(".parquet") for name in found.files):
        raise UserError(f"{path} has no table whose text --encoding could be for.", "Omit --encoding.")
    if isinstance(layout, LayoutError):
        if not found.has_labels:
            raise LayoutError(layout.what, " ".join([*found.notes, *_unread_labels(tree, found), layout.fix]))
        images_of = [*found.sources.values()]
        if any(one != images_of[0] for one in images_of) and not all(map(_names_split, found.sources)):
            counts = [f"{name} to {format_count(len(names), 'image')}" for name, names in found.sources.items()]
            what = f"Several tables give classes: {', '.join(counts)}."
            raise UserError(what, f"Choose with --table, for example --table {next(iter(found.sources))}.")
        labelled = [(row, name) for row, name in zip(found.rows, found.names, strict=True) if row.label]
        if len({row.label for row, _ in labelled}) < 2:
            raise LayoutError(layout.what, f"{found.files[0]} has a single class. {layout.fix}")
        rows, names = zip(*labelled, strict=True)
        notes = [f"Classes are from {', '.join(found.sources)}.", *found.notes]
        return table_listing(tree, rows, [Located(name) for name in names], notes, found.files)
    layout, groups, notes = _combine(layout, found, tree)
    listing = folder_listing(tree, layout, (*found.notes, *notes), groups, found.files)
    if options.splits is not None or ignores_tables or any(row.split for row in layout.rows):
        return listing
    lists, unlisted = lists_in_tree(tree, layout.root, {row.name for row in layout.rows})
    if not lists.lists:
        return listing
    if unlisted:
        note = (
            f"Not used: {format_names(lists.files)}, in which the class {unlisted[0]!r} is not; --splits with their "
            "folder uses them, and leaves such classes out."
        )
        return replace(listing, notes=(*listing.notes, note))
    listing = folder_listing(tree, layout, (*found.notes, *notes), groups, [*found.files, *lists.files])
    return apply_lists(listing, lists)


def _names_split(table: str) -> bool:
    """Return whether a table is that of a split by its name or that of its folder."""
    return any(split_word(part) for part in (*table.split("/")[:-1], Path(table).stem))


def _unread_labels(tree: Tree, found: Labels) -> list[str]:
    """Return a sentence on files of other kinds that may hold labels."""
    near = [name for name in tree.files if name.count("/") < _MAX_DEPTH and name.lower().endswith(_LABEL_FILES)]
    unread = [name for name in near if name not in found.files and not name.lower().endswith("readme.txt")]
    return (
        [f"Not read: {format_names(unread)}; save their labels as csv with the columns path and label."]
        if unread
        else []
    )


@dataclass
class Labels:
    """The labels and splits that tables give to images.

    Attributes:
        rows, names: Rows of all tables, and the file that each names.
        files: Names of the files that were read.
        sources: The images of each table that gives labels.
        notes: Sentences on the tables, also on those that are not used.
    """

    rows: list[LabelRow] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    sources: dict[str, set[str]] = field(default_factory=dict)
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
    search: ImageSearch | None = None
    row_of: dict[str, LabelRow] = {}
    for read, files in _candidates(tree, encoding, labels.notes):
        search = search or ImageSearch(tree.files)
        try:
            rows, names, notes = _resolve(read(), search)
        except (UserError, UnreadableError) as error:
            if encoding and isinstance(error, UserError):
                raise  # perhaps the wrong encoding
            reason = str(error) if isinstance(error, UserError) else f"{files[0]}: {error}."
            labels.notes.append(f"Not used: {reason}")
            continue
        if repeated := _merge(row_of, rows, names):
            rows_text = format_count(len(repeated), "image")
            notes.append(f"{files[0]}: several equal rows for {rows_text}: {format_names(repeated)}.")
        if any(row.label for row in rows):
            labels.sources[files[0]] = set(names)
        labels.files += files
        labels.notes += notes
    labels.names, labels.rows = list(row_of), list(row_of.values())
    return labels


def _merge(row_of: dict[str, LabelRow], rows: list[LabelRow], names: list[str]) -> list[str]:
    """Add the rows of a table to those of others by image; return the images that have several rows in the table.

    Raises:
        UserError: two rows give one image different labels or splits.
    """
    own = Counter(names)
    for row, name in zip(rows, names, strict=True):
        first = row_of.setdefault(name, row)
        if first is row:
            continue
        for what, value, earlier in (("label", row.label, first.label), ("split", row.split, first.split)):
            if value and earlier and value != earlier:
                is_same_table = own[name] > 1
                raise UserError(
                    f"{row.place}: the {what} of {name!r} is {value!r}, but {earlier!r} in {first.place}.",
                    "Keep one row per image; or ignore all tables with --table none."
                    if is_same_table
                    else "Choose the table with --table, or --table none to ignore all tables.",
                )
        row_of[name] = first._replace(label=first.label or row.label, split=first.split or row.split)
    return [name for name, count in own.items() if count > 1]


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
        elif file.endswith(".txt") and _list_split(name) and name.count("/") < _MAX_DEPTH:
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
    return Table(name, columns | {"split": [_list_split(name)] * len(rows)}, [place for place, _ in rows])


def _list_split(name: str) -> str:
    """Return the split of a list of images such as ``clipart_train.txt`` by its name."""
    splits = {split for word in words_of(Path(name).stem) if (split := split_word(word))}
    return splits.pop() if len(splits) == 1 else ""


def _resolve(table: Table, search: ImageSearch) -> tuple[list[LabelRow], list[str], list[str]]:
    """Return the rows of a table that name images, the file of each, and notes.

    Raises:
        UserError: the table names no images, or has no labels and no splits.
    """
    folder = table.name.rpartition("/")[0]
    own_split = split_word(Path(table.name).stem) or (split_word(folder.rpartition("/")[2]) if folder else "")
    path = choose_path_column(table, lambda value: search.quality(value, folder))
    if not path:
        raise UserError(f"{table.description} names no images that are here.", "")
    table = with_one_hot_labels(table, path)
    notes: list[str] = []
    try:
        columns, notes = find_columns(table, path)
    except UserError:
        if not own_split and "split" not in table.columns:
            raise
        values = table.columns.get("split", [own_split] * len(table.places))
        triples = zip(table.places, table.columns[path], values, strict=True)
        rows = [LabelRow(place, one.strip(), "", split_word(split), "", "") for place, one, split in triples]
    else:
        rows, changes = label_rows(table, columns, own_split)
        notes += changes
    found = [search.find(row.path, row.label, row.split or own_split, folder) for row in rows]
    pairs = [(row, name) for row, name in zip(rows, found, strict=True) if name is not None]
    if not pairs:
        what = f"{table.description}: {rows[0].path!r} and the other files are here several times."
        raise UserError(what, "Use paths relative to the folder of the table.")
    if len(pairs) < len(rows):
        missing = [row.path for row, name in zip(rows, found, strict=True) if name is None]
        notes.append(f"{table.name}: {format_count(len(missing), 'row')} without an image: {format_names(missing)}.")
    return [row for row, _ in pairs], [name for _, name in pairs], notes


def _combine(layout: Layout, labels: Labels, tree: Tree) -> tuple[Layout, list[str], list[str]]:
    """Return the layout with the splits, groups and further labelled images of tables, its groups, and notes.

    Raises:
        UserError: the tables give other classes than the folders.
    """
    if not labels.rows:
        return layout, [], []
    row_of = dict(zip(labels.names, labels.rows, strict=True))
    tables = ", ".join(labels.files)
    name_of = _check_agreement(layout, row_of, labels, tree)
    classes = {row.name for row in layout.rows}
    known = {row.file for row in layout.rows}
    further = {file: row for file, row in row_of.items() if file not in known and row.label}
    strange = sorted({row.label for row in further.values()} - name_of.keys() - classes)
    are_names = bool(name_of) and all(label == name for label, name in name_of.items())
    if strange and not are_names:
        return layout, [], [f"Not used: {tables}, whose classes {format_names(strange)} are not those of the folders."]
    notes = [f"Also read: {tables}."]
    if renamed := [
        f"{name!r} is {label!r}" for label, name in name_of.items() if name != label and not label.isdecimal()
    ]:
        notes.append(f"Classes are called as their folders; in {tables}, {', '.join(renamed[:3])}.")
    has_splits = any(row.split for row in layout.rows)
    other = [row.file for row in layout.rows if row.file in row_of and row_of[row.file].split not in ("", row.split)]
    if has_splits and other:
        notes.append(
            f"The split is that of the folders; {tables} has another for {format_count(len(other), 'image')}: "
            f"{format_names(other)}."
        )
    rows = [
        row if has_splits or row.file not in row_of else row._replace(split=row_of[row.file].split)
        for row in layout.rows
    ]
    if further:
        notes.append(f"{format_count(len(further), 'image')} outside class folders: their classes are from {tables}.")
        rows += [
            Row(file, name_of.get(row.label, row.label), row.split or _split_of_folder(file, layout))
            for file, row in further.items()
        ]
    remaining = {why: [file for file in files if file not in further] for why, files in layout.left_out.items()}
    left_out: Mapping[str, list[str]] = {why: files for why, files in remaining.items() if files}
    rows.sort(key=row_order)
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
    is_permuted = any(name != label and label in names for name, label in pairs)
    if len(names) == len(texts) == len(pairs) and not is_permuted:
        return {label: name for name, label in pairs}
    row, label = next(((row, label) for row, label in both if row.name != label), both[0])
    raise UserError(
        f"The folders of {tree.path} give these images {format_count(len(names), 'class', 'classes')} "
        f"({format_names(sorted(names))}), but {', '.join(labels.files)} {len(texts):,} "
        f"({format_names(sorted(texts))}); for example {row.file!r} is {label!r} there.",
        f"Choose with --table {','.join(filter(is_table, labels.files)) or '...'}, or --table none for the folders.",
    )
