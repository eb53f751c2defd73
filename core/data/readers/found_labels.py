"""Find the tables and lists in a folder or archive that give labels, splits or groups to its images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from core.data.archive import Tree
from core.data.decode import UnreadableError
from core.data.readers.common import split_word, words_of
from core.data.readers.image_search import WHOLE_PATH, ImageSearch, has_folder
from core.data.readers.label_columns import choose_path_column, find_columns, has_label_column, with_one_hot_labels
from core.data.readers.label_rows import LabelRow, label_rows
from core.data.readers.tables import SPLIT_NAMES, Table, decode_text, is_table, read_table
from core.runtime.errors import UserError
from core.runtime.progress import format_count, format_names

MAX_DEPTH = 6
"""Folders above a table that is looked at."""
_MAX_TABLES = 20
"""Tables, and lists, that are looked at; more of them are rather one per image."""
_TINY_FILE = "val_annotations.txt"
_CUB_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


@dataclass
class FoundLabels:
    """The labels, splits and groups that tables give to images.

    Attributes:
        rows: The values by image file, those of all tables in one row.
        files: Names of the files that were read.
        sources: The images of each table that gives labels.
        notes: Sentences on the tables.
        unused: Sentences on the tables that are not used, by file.
    """

    rows: dict[str, LabelRow] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    sources: dict[str, set[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)


def find_labels(tree: Tree, encoding: str | None) -> FoundLabels:
    """Find the tables in ``tree`` that give labels, splits or groups to its images.

    Raises:
        UserError: two rows give different values to one image; or a table cannot be read, if ``encoding`` is given.
    """
    labels = FoundLabels()
    search: ImageSearch | None = None
    for read, files in _candidates(tree, encoding, labels.notes):
        search = search or ImageSearch(tree.files)
        try:
            images, notes = _resolve(read(), search)
        except (UserError, UnreadableError) as error:
            if encoding and isinstance(error, UserError):
                raise  # perhaps the wrong encoding
            reason = str(error) if isinstance(error, UserError) else f"{files[0]}: {error}."
            labels.unused[files[0]] = f"Not used: {reason}"
            continue
        if repeated := _merge(labels.rows, images):
            count = format_count(len(repeated), "image")
            notes.append(f"{files[0]}: several equal rows for {count}: {format_names(repeated)}.")
        if any(row.label for _, row in images):
            labels.sources[files[0]] = {name for name, _ in images}
        labels.files += files
        labels.notes += notes
    return labels


def _merge(rows: dict[str, LabelRow], images: list[tuple[str, LabelRow]]) -> list[str]:
    """Add the rows of a table to those of others; return the images that have several rows in the table.

    Raises:
        UserError: two rows give one image different labels, splits or groups.
    """
    counts = Counter(name for name, _ in images)
    for name, row in images:
        first = rows.setdefault(name, row)
        if first is row:
            continue
        for what in ("label", "split", "group"):
            value, earlier = getattr(row, what), getattr(first, what)
            if value and earlier and value != earlier:
                raise UserError(
                    f"{row.place}: the {what} of {name!r} is {value!r}, but {earlier!r} in {first.place}.",
                    "Keep one row per image; or ignore all tables with --table none."
                    if counts[name] > 1
                    else "Choose the table with --table, or --table none to ignore all tables.",
                )
        rows[name] = first._replace(**{what: getattr(first, what) or getattr(row, what) for what in _MERGED})
    return [name for name, count in counts.items() if count > 1]


_MERGED = ("label", "split", "group")


def _candidates(tree: Tree, encoding: str | None, notes: list[str]) -> Iterator[tuple[Callable[[], Table], list[str]]]:
    """Yield a function that reads each table, with the files it reads; explain in ``notes`` what is not looked at."""
    files = set(tree.files)
    for name in tree.files:
        folder, _, file = name.rpartition("/")
        cub = [f"{folder}/{part}".lstrip("/") for part in _CUB_FILES]
        if file == _CUB_FILES[0] and cub[1] in files:
            present = [part for part in cub if part in files]
            yield partial(_read_cub, tree, cub, present, encoding), present
        elif file == _TINY_FILE:
            yield partial(_read_annotations, tree, name, encoding), [name]
    shallow = [name for name in tree.files if name.count("/") < MAX_DEPTH]
    tables = [name for name in shallow if is_table(name)]
    if submissions := [name for name in tables if "submission" in name.lower()]:
        notes.append(f"Not used, as a table to submit predictions: {format_names(submissions)}.")
    texts = [name for name in shallow if name.lower().endswith(".txt") and not name.endswith(_TINY_FILE)]
    lists = [name for name in texts if _list_split(name)]
    tables = [name for name in tables if name not in submissions]
    for what, names, read in (("table", tables, read_table), ("list", lists, _read_list)):
        if len(names) > _MAX_TABLES:
            notes.append(f"{format_count(len(names), what)} are not looked at: {format_names(names)}.")
            continue
        for name in names:
            yield partial(read, tree, name, encoding), [name]


def _resolve(table: Table, search: ImageSearch) -> tuple[list[tuple[str, LabelRow]], list[str]]:
    """Return the image files that a table names with its rows, and notes.

    Raises:
        UserError: the table names no images, or gives neither labels nor splits nor groups.
    """
    folder = table.name.rpartition("/")[0]
    own_split = split_word(Path(table.name).stem) or split_word(folder.rpartition("/")[2])
    path = choose_path_column(table, lambda value: search.quality(value, folder))
    if path is None:
        raise UserError(f"{table.description} contains no name of an image in this folder.", "")
    table = with_one_hot_labels(table, path)
    is_useful = bool(own_split or table.find((*SPLIT_NAMES, "group")))
    columns, notes = find_columns(table, path, needs_label=has_label_column(table) or not is_useful)
    rows, changes = label_rows(table, columns, own_split)
    are_exact = any(search.quality(row.path, folder) == WHOLE_PATH for row in rows)
    images, missing = [], []
    for row in rows:
        is_lost = are_exact and has_folder(row.path) and search.quality(row.path, folder) != WHOLE_PATH
        name = None if is_lost else search.find(row.path, row.label, row.split or own_split, folder)
        if name is None:
            missing.append(row.path)
        else:
            images.append((name, row))
    if not images:
        what = f"{table.description}: {rows[0].path!r} and the other names each match several images."
        raise UserError(what, "Use paths relative to the folder of the table.")
    if missing:
        notes.append(f"{table.name}: {format_count(len(missing), 'row')} without an image: {format_names(missing)}.")
    return images, [*notes, *changes]


def _text_lines(tree: Tree, name: str, encoding: str | None) -> list[tuple[str, str]]:
    """Return the place and the text of every line that is not empty."""
    lines = decode_text(tree.read(name), name, encoding).split("\n")
    return [(f"{name}, line {number}", line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip()]


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
            absent = files[1 if number not in labels else 2]
            raise UserError(f"{place}: image {number} is not in {absent}.", "Use the published files.")
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
    split = split_word(name.split("/")[-2]) if "/" in name else ""
    columns = {"path": [values[0] for _, values in rows], "label": [values[1] for _, values in rows]}
    return Table(name, columns | {"split": [split or "val"] * len(rows)}, [place for place, _ in rows])


def _read_list(tree: Tree, name: str, encoding: str | None) -> Table:
    """Read a list of images, one per line, each perhaps followed by the number of its class."""
    lines = _text_lines(tree, name, encoding)
    matches = [re.fullmatch(r"(.*\S)\s+(\d+)\s*", line) for _, line in lines]
    columns = {"path": [line.strip() for _, line in lines]}
    numbered = [match for match in matches if match]
    if len(numbered) == len(lines):
        columns = {"path": [match[1] for match in numbered], "label": [match[2] for match in numbered]}
    return Table(name, columns | {"split": [_list_split(name)] * len(lines)}, [place for place, _ in lines])


def _list_split(name: str) -> str:
    """Return the split of a list of images such as ``clipart_train.txt`` by its name."""
    splits = {split for word in words_of(Path(name).stem) if (split := split_word(word))}
    return splits.pop() if len(splits) == 1 else ""
