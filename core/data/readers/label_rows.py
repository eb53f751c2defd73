"""Read the labels in a table, and find the images that it names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from core.data.readers.common import SPLIT_WORDS, format_names, is_image, split_word
from core.data.readers.tables import COLUMNS_HELP, LABEL_NAMES, PATH_NAMES, SPLIT_NAMES, Table, plain_labels
from core.runtime.errors import UserError


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


def find_columns(table: Table, paths: Sequence[str] = ()) -> tuple[Columns, list[str]]:
    """Return the columns that hold paths and labels, by their names, and notes on the choice.

    Args:
        paths: Columns that are known to hold paths; by default those with a usual name.

    Raises:
        UserError: there is no such column, or several columns give different classes.
    """
    notes = []
    paths = paths or table.find(PATH_NAMES)
    labels = [column for column in table.find(LABEL_NAMES) if column not in paths[:1]]
    if paths and not labels and len(table.columns) == 2:
        labels = [one for one in table.columns if one != paths[0] and not _holds_splits(table, one)]
    for column, found in (("path", paths), ("label", labels)):
        if not found:
            kinds = [f"{name} ({kind})" for name, kind in table.unread.items()]
            shown = format_names([*table.columns, *kinds], 10)
            raise UserError(f"{table.name} has no column {column}; its columns are {shown}.", COLUMNS_HELP)
    label = _choose_label(table, labels)
    if (paths[0].lower(), label.lower()) != ("path", "label"):
        notes.append(f"{table.name}: images are in the column {paths[0]!r}, classes in {label!r}.")
    split = next((column for column in table.find(SPLIT_NAMES) if column != label and _holds_splits(table, column)), "")
    group, image_id = (next((one for one in table.find((name,)) if one not in (paths[0], label)), "") for name in _MORE)
    return Columns(paths[0], label, split, group, image_id), notes


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


def label_rows(table: Table, columns: Columns, split: str = "") -> tuple[list[LabelRow], list[str]]:
    """Return the rows of a table and notes on what was changed.

    Args:
        split: The split of all rows, if the table has no column of splits.

    Raises:
        UserError: names the first row whose path, label or id is empty, or whose split has an unknown name.
    """
    if not table.places:
        raise UserError(f"{table.name} has no rows.", COLUMNS_HELP)
    labels, notes = plain_labels(table.columns[columns.label])
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
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for file in filter(is_image, files):
            name = file.rpartition("/")[2]
            self._by_name[name].append(file)
            self._by_stem[name.rpartition(".")[0]].append(file)

    def find(self, path: str, label: str = "", split: str = "") -> str | None:
        """Return the one image that a path of another folder means, or None if there is none or are several.

        Of several with the same file name, the one whose folders agree most counts, then the one in a folder called
        like the label, then the one in a folder of the split.
        """
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts:
            return None
        found = self._by_name.get(parts[-1]) or self._by_stem.get(parts[-1]) or []
        if len(found) > 1:
            agreement = {file: _common_end(file.split("/")[:-1], parts[:-1]) for file in found}
            found = [file for file in found if agreement[file] == max(agreement.values())]
        if len(found) > 1:
            found = [file for file in found if label in file.split("/")[:-1]] or found
        if len(found) > 1:
            found = [file for file in found if split and split in map(split_word, file.split("/")[:-1])] or found
        return found[0] if len(found) == 1 else None


def _common_end(folders: Sequence[str], others: Sequence[str]) -> int:
    """Return the number of equal folders from the last one backwards."""
    count = 0
    for one, other in zip(reversed(folders), reversed(others), strict=False):
        if one != other:
            break
        count += 1
    return count
