"""Read the labels in a table, and find the images that it names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from core.data.readers.common import SPLIT_WORDS, format_names, is_image, split_word, words_of
from core.data.readers.tables import COLUMNS_HELP, LABEL_NAMES, PATH_NAMES, SPLIT_NAMES, Table, plain_labels
from core.runtime.errors import UserError

_PATH_WORDS = {"image", "img", "file", "path", "photo", "picture", "id"}
_SAMPLED_ROWS = 200


class LabelRow(NamedTuple):
    """One row of a table: its place in errors, and the values of its columns without blanks around them."""

    place: str
    path: str
    label: str
    split: str
    group: str
    id: str


class Columns(NamedTuple):
    """The columns of a table that are used; ``""``: there is none."""

    path: str
    label: str
    split: str
    group: str
    id: str


def find_columns(table: Table, path: str = "") -> tuple[Columns, list[str]]:
    """Return the columns that hold paths and labels, by their names, and notes on the choice.

    Args:
        path: The column that is known to hold paths; by default the first with a usual name.

    Raises:
        UserError: there is no such column, or several columns give different classes.
    """
    notes = []
    paths = [path] if path else table.find(PATH_NAMES)
    labels = [column for column in table.find(LABEL_NAMES) if column not in paths[:1]]
    for column, found in (("path", paths), ("label", labels)):
        if not found:
            kinds = [f"{name} ({kind})" for name, kind in table.unread.items()]
            shown = format_names([*table.columns, *kinds], 10)
            what = f"{table.name} has no column {column}; its columns are {shown}."
            raise UserError(what, f"Rename the right one to {column}. {COLUMNS_HELP}")
    label = _choose_label(table, labels)
    if (paths[0].lower(), label.lower()) != ("path", "label"):
        notes.append(f"{table.name}: images are in the column {paths[0]!r}, classes in {label!r}.")
    usual_splits = [column for column in table.find(SPLIT_NAMES) if column != label]
    split = next((column for column in usual_splits if _holds_splits(table, column)), "")
    if usual_splits and not split:
        other = next(value for value in table.columns[usual_splits[0]] if value.strip() and not split_word(value))
        notes.append(f"{table.name}: the column {usual_splits[0]!r} is no split, because of its value {other[:40]!r}.")
    group, image_id = (next((one for one in table.find((name,)) if one not in (paths[0], label)), "") for name in _MORE)
    columns = Columns(paths[0], label, split, group, image_id)
    if unused := [column for column in (*table.columns, *table.unread) if column not in columns]:
        notes.append(f"{table.name}: columns that are not used: {format_names(unused, 5)}.")
    return columns, notes


_MORE = ("group", "id")


def _choose_label(table: Table, labels: Sequence[str]) -> str:
    """Return the column of class names; of columns that mean the same, one with text rather than numbers."""
    exact = next((column for column in labels if column.lower() == "label"), "")
    partitions = {column: len(set(table.columns[column])) for column in labels}
    pairs = {tuple(values) for values in zip(*(table.columns[column] for column in labels), strict=True)}
    if set(partitions.values()) <= {len(pairs)}:  # one to one
        texts = [column for column in labels if not all(_is_number(value) for value in table.columns[column])]
        return next(iter(texts), labels[0])
    if exact:
        return exact
    counts = ", ".join(f"{column!r} ({partitions[column]:,} classes)" for column in labels)
    raise UserError(f"{table.name} has several columns of classes: {counts}.", "Rename the right one to label.")


def _is_number(text: str) -> bool:
    return text.strip().lstrip("+-").replace(".", "", 1).isdigit()


def _holds_splits(table: Table, column: str) -> bool:
    """Return whether a column is called split, or holds only names of splits, of which images have few."""
    values = {value.strip() for value in table.columns[column]} - {""}
    return column.lower() == "split" or (bool(values) and all(map(split_word, values)))


def with_one_hot_labels(table: Table, path: str) -> Table:
    """Return the table with a column ``label``, if each class has a column of its own with a 1 in its rows, else 0."""
    others = {column: values for column, values in table.columns.items() if column != path and values}
    if table.find(LABEL_NAMES) or len(others) < 2:
        return table
    numbers = {column: [value.strip().removesuffix(".0") for value in values] for column, values in others.items()}
    names = [column for column, values in numbers.items() if set(values) <= {"0", "1"}]
    rows = list(zip(*(numbers[name] for name in names), strict=True))
    if len(names) < 2 or any(row.count("1") != 1 for row in rows):
        return table
    labels = [names[row.index("1")] for row in rows]
    return replace(table, columns={**table.columns, "label": labels})


def label_rows(table: Table, columns: Columns, split: str = "") -> tuple[list[LabelRow], list[str]]:
    """Return the rows of a table and notes on what was changed.

    Args:
        split: The split of all rows, if the table has no column of splits.

    Raises:
        UserError: names the first row whose path, label or id is empty, or whose split has an unknown name.
    """
    if not table.places:
        raise UserError(f"{table.name} has no rows.", COLUMNS_HELP)
    labels, notes = plain_labels(table.columns[columns.label], table.places)
    empty = [""] * len(labels)
    values = [table.columns[column] if column else empty for column in (columns.path, *columns[2:])]
    rows = []
    for place, label, path, own_split, group, image_id in zip(table.places, labels, *values, strict=True):
        for column, value in (("path", path), ("label", label)):
            if not value.strip():
                raise UserError(f"{place}: {column} is empty.", "Fill it in or delete the row.")
        if columns.id and not image_id.strip():
            raise UserError(f"{place}: id is empty.", "Fill it in, or delete the column.")
        if own_split.strip() and not split_word(own_split):
            allowed = ", ".join(SPLIT_WORDS)
            raise UserError(f"{place}: split is {own_split[:80]!r}.", f"Use one of {allowed}, or leave it empty.")
        chosen = split_word(own_split) if columns.split else split
        rows.append(LabelRow(place, path.strip(), label, chosen, group.strip(), image_id.strip()))
    return rows, notes


class ImageSearch:
    """A search for the images of a folder or archive by the paths, file names or stems that tables contain."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = set(filter(is_image, files))
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for file in sorted(self._files):
            name = file.rpartition("/")[2]
            self._by_name[name.lower()].append(file)
            self._by_stem[name.rpartition(".")[0].lower()].append(file)

    def quality(self, path: str, folder: str = "") -> int:
        """Return how well a path of a table in ``folder`` fits the files: 3 by the whole path, 2 by the file
        name, 1 by the name without extension, 0 not at all."""
        parts = _parts(path)
        if not parts:
            return 0
        if "/".join([*_parts(folder), *parts]) in self._files:
            return 3
        return 2 if parts[-1].lower() in self._by_name else int(parts[-1].lower() in self._by_stem)

    def find(self, path: str, label: str = "", split: str = "", folder: str = "") -> str | None:
        """Return the one image that a path of a table in ``folder`` means, or None if there is none or are several.

        Of several with the same file name, the one whose folders agree most counts, then the one in a folder called
        like the label, then the one in a folder of the split.
        """
        parts = _parts(path)
        if not parts:
            return None
        exact = "/".join([*_parts(folder), *parts])
        if exact in self._files:
            return exact
        found = self._by_name.get(parts[-1].lower()) or self._by_stem.get(parts[-1].lower()) or []
        if len(found) > 1:
            agreement = {file: _common_end(file.split("/")[:-1], parts[:-1]) for file in found}
            found = [file for file in found if agreement[file] == max(agreement.values())]
        if len(found) > 1:
            found = [file for file in found if label in file.split("/")[:-1]] or found
        if len(found) > 1:
            found = [file for file in found if split and split in map(split_word, file.split("/")[:-1])] or found
        return found[0] if len(found) == 1 else None


def _parts(path: str) -> list[str]:
    return [part for part in path.strip().replace("\\", "/").split("/") if part not in ("", ".")]


def _common_end(folders: Sequence[str], others: Sequence[str]) -> int:
    """Return the number of equal folders from the last one backwards."""
    count = 0
    for one, other in zip(reversed(folders), reversed(others), strict=False):
        if one != other:
            break
        count += 1
    return count


def choose_path_column(table: Table, quality: Callable[[str], int]) -> str:
    """Return the column whose values fit files best, or ``""`` if none of them names any.

    A row number may be the name of a file without its extension, so whole paths count more than file names, and these
    more than names without extension. Only a column with a usual name may hold numbers or miss most files.

    Raises:
        UserError: several columns fit equally well, but differ in their values.
    """
    usual = table.find(PATH_NAMES)
    found: dict[str, int] = {}
    for column in [*usual, *(column for column in table.columns if column not in usual)]:
        values = [value for value in table.columns[column] if value.strip()][:_SAMPLED_ROWS]
        qualities = [quality(value) for value in values]
        is_usual = column in usual or not _PATH_WORDS.isdisjoint(words_of(column))
        is_path = any(qualities) if is_usual else sum(map(bool, qualities)) >= len(values) / 2
        if values and is_path and (is_usual or not all(value.strip().isdecimal() for value in values)):
            found[column] = max(qualities)
    best = [column for column in found if found[column] == max(found.values())]
    named = [column for column in best if column in usual] or best
    if len({tuple(table.columns[column]) for column in named}) > 1 and found[named[0]] == 1:
        what = f"{table.name}: the columns {format_names(named)} could both name images."
        raise UserError(what, "Rename the column of file names to path.")
    return named[0] if named else ""
