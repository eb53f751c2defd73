"""Read images with the classes and splits that their folders, and the tables and lists beside them, give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from core.data.archive import Tree
from core.data.listing import Listing
from core.data.readers.common import NO_TABLE, ReadOptions, split_word
from core.data.readers.folder import folder_listing, images_in, layout_of
from core.data.readers.found_labels import MAX_DEPTH, FoundLabels, find_labels
from core.data.readers.layout import Layout, LayoutError, PlacedImage, row_order
from core.data.readers.manifest import Located, read_manifest, table_listing
from core.data.readers.split_lists import apply_lists, is_class_list, lists_in_tree
from core.data.readers.tables import is_table
from core.runtime.errors import UserError
from core.runtime.progress import format_count, format_names

_LABEL_FILES = (".xlsx", ".xls", ".ods", ".json", ".xml", ".lst", ".mat", ".txt")
"""Endings of files that may hold labels."""


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
    layout: Layout | LayoutError
    try:
        layout = layout_of(tree, images_in(tree), options)
    except LayoutError as error:
        if options.class_levels:
            raise
        layout = error
    ignores_tables = options.table == NO_TABLE or options.class_levels is not None
    found = FoundLabels() if ignores_tables else find_labels(tree, options.encoding)
    if options.encoding and all(name.lower().endswith(".parquet") for name in found.files):
        raise UserError(f"{tree.path} has no table whose text --encoding could be for.", "Omit --encoding.")
    if isinstance(layout, LayoutError):
        return _listing_by_tables(tree, found, layout)
    layout, groups, notes = _combine(layout, found, tree)
    if ignores_tables or options.splits is not None or any(row.split for row in layout.rows):
        return folder_listing(tree, layout, (*found.notes, *found.unused.values(), *notes), groups, found.files)
    lists, list_notes = lists_in_tree(tree, layout.root, {row.name for row in layout.rows})
    unused = [note for file, note in found.unused.items() if file not in lists.files]
    notes = [*found.notes, *unused, *notes, *list_notes]
    listing = folder_listing(tree, layout, notes, groups, [*found.files, *lists.files])
    return apply_lists(listing, lists) if lists.lists else listing


def _listing_by_tables(tree: Tree, found: FoundLabels, problem: LayoutError) -> Listing:
    """Return the images that tables name; ``problem`` says why the folders do not give their classes."""
    labelled = {name: row for name, row in found.rows.items() if row.label}
    notes = [*found.notes, *found.unused.values()]
    if not labelled:
        raise LayoutError(problem.what, " ".join([*notes, *_unread_labels(tree, found), problem.fix]))
    images_of = [*found.sources.values()]
    if any(images != images_of[0] for images in images_of) and not all(map(_names_split, found.sources)):
        counts = [f"{name} to {format_count(len(images), 'image')}" for name, images in found.sources.items()]
        what = f"Several tables give classes: {', '.join(counts)}."
        raise UserError(what, f"Choose with --table, for example --table {next(iter(found.sources))}.")
    sources = ", ".join(found.sources)
    if len({row.label for row in labelled.values()}) < 2:
        raise LayoutError(problem.what, f"{sources} has a single class. {problem.fix}")
    notes = [f"Classes are from {sources}.", *notes]
    return table_listing(tree, [*labelled.values()], [Located(name) for name in labelled], notes, found.files)


def _names_split(table: str) -> bool:
    """Return whether a table is that of a split by its name or that of its folder."""
    return any(split_word(part) for part in (*table.split("/")[:-1], Path(table).stem))


def _unread_labels(tree: Tree, found: FoundLabels) -> list[str]:
    """Return a sentence on files of other kinds that may hold labels."""
    shallow = [name for name in tree.files if name.count("/") < MAX_DEPTH and name.lower().endswith(_LABEL_FILES)]
    lists = [name for name in shallow if is_class_list(tree, name)]
    if lists:
        folder = (tree.path / lists[0]).parent
        return [f"{format_names(lists)} list classes: --splits {folder} uses them, once the classes are clear."]
    unread = [name for name in shallow if name not in found.files and not name.lower().endswith("readme.txt")]
    advice = "save their labels as csv with the columns path and label"
    return [f"Not read: {format_names(unread)}; {advice}."] if unread else []


def _combine(layout: Layout, found: FoundLabels, tree: Tree) -> tuple[Layout, list[str], list[str]]:
    """Return the layout with the splits and additional images of tables, the group of every row, and notes.

    Raises:
        UserError: the tables give other classes than the folders.
    """
    if not found.rows:
        return layout, [], []
    tables = ", ".join(found.files)
    name_of = _check_agreement(layout, found, tree)
    placed = {row.file for row in layout.rows}
    additional = {file: row for file, row in found.rows.items() if file not in placed and row.label}
    unknown = {row.label for row in additional.values()} - name_of.keys() - {row.name for row in layout.rows}
    if unknown and not (name_of and all(label == name for label, name in name_of.items())):
        shown = format_names(sorted(unknown))
        return layout, [], [f"Not used: {tables}, whose classes {shown} are not those of the folders."]
    rows, notes = _with_splits(layout.rows, found, tables)
    if renamed := {label: name for label, name in name_of.items() if label != name and not label.isdecimal()}:
        shown = ", ".join(f"{name!r} is {label!r}" for label, name in [*renamed.items()][:3])
        notes.append(f"Classes are called as their folders; in {tables}, {shown}.")
    if additional:
        count = format_count(len(additional), "image")
        notes.append(f"{count} outside class folders: their classes are from {tables}.")
        rows += [
            PlacedImage(file, name_of.get(row.label, row.label), row.split or _split_of_folder(file, layout))
            for file, row in additional.items()
        ]
    if any(row.id for row in found.rows.values()):
        notes.append(f"The column id of {tables} is not used: ids are the paths below the class folders.")
    unplaced = {why: [file for file in files if file not in additional] for why, files in layout.left_out.items()}
    left_out: Mapping[str, list[str]] = {why: files for why, files in unplaced.items() if files}
    rows.sort(key=row_order)
    groups = [found.rows[row.file].group if row.file in found.rows else "" for row in rows]
    return replace(layout, rows=rows, left_out=left_out), groups, [f"Also read: {tables}.", *notes]


def _with_splits(rows: Iterable[PlacedImage], found: FoundLabels, tables: str) -> tuple[list[PlacedImage], list[str]]:
    """Return the rows with the splits of tables, unless folders give them, and a note on a difference."""
    rows = list(rows)
    split_of = {file: row.split for file, row in found.rows.items() if row.split}
    if not any(row.split for row in rows):
        return [row._replace(split=split_of.get(row.file, "")) for row in rows], []
    different = [row.file for row in rows if split_of.get(row.file, row.split) != row.split]
    count = format_count(len(different), "image")
    note = f"The split is that of the folders; {tables} has another for {count}: {format_names(different)}."
    return rows, [note] if different else []


def _split_of_folder(file: str, layout: Layout) -> str:
    for split, folders in layout.split_folders.items():
        if any(file.startswith(layout.root + folder) for folder in folders):
            return split
    return ""


def _check_agreement(layout: Layout, found: FoundLabels, tree: Tree) -> dict[str, str]:
    """Return the class folder of each label; raise UserError if the two do not correspond one to one."""
    labels = {file: row.label for file, row in found.rows.items() if row.label}
    labelled = [row for row in layout.rows if row.file in labels]
    pairs = {(row.name, labels[row.file]) for row in labelled}
    names, texts = {name for name, _ in pairs}, {label for _, label in pairs}
    is_permuted = any(name != label and label in names for name, label in pairs)
    if len(names) == len(texts) == len(pairs) and not is_permuted:
        return {label: name for name, label in pairs}
    row = next((row for row in labelled if row.name != labels[row.file]), labelled[0])
    tables = ",".join(filter(is_table, found.sources))
    raise UserError(
        f"The folders of {tree.path} give these images {format_count(len(names), 'class', 'classes')} "
        f"({format_names(sorted(names))}), but {', '.join(found.sources)} {len(texts):,} "
        f"({format_names(sorted(texts))}); for example {row.file!r} is {labels[row.file]!r} there.",
        f"Choose with {f'--table {tables}, or ' if tables else ''}--table none for the folders.",
    )
