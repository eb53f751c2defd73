"""Choose the columns of a table that hold the paths, the classes and the splits of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from core.data.readers.common import split_word, words_of
from core.data.readers.image_search import STEM
from core.data.readers.tables import COLUMNS_HELP, LABEL_NAMES, PATH_NAMES, SPLIT_NAMES, Table, is_number
from core.runtime.errors import UserError
from core.runtime.progress import format_names

_PATH_WORDS = {"image", "img", "file", "path", "photo", "picture", "id"}
_SAMPLED_ROWS = 200
_CLASS_COLUMN = "label_by_column"
"""Column that :func:`with_one_hot_labels` adds."""


class TableColumns(NamedTuple):
    """The columns of a table that are used; ``""``: there is none."""

    path: str
    label: str
    split: str
    group: str
    id: str


def find_columns(table: Table, path: str = "", *, needs_label: bool = True) -> tuple[TableColumns, list[str]]:
    """Return the columns that hold paths, labels and more, by their names, and notes on the choice.

    Args:
        path: The column that is known to hold paths; by default the first with a usual name.
        needs_label: Raise an error if there is no column of classes.

    Raises:
        UserError: there is no such column, or several columns give different classes.
    """
    paths = [path] if path else table.find(PATH_NAMES)
    labels = [column for column in table.find((_CLASS_COLUMN, *LABEL_NAMES)) if column not in paths[:1]]
    for column, found in (("path", paths), ("label", labels if needs_label else paths)):
        if not found:
            kinds = [f"{name} ({kind})" for name, kind in table.unread.items()]
            shown = format_names([*table.columns, *kinds], 10) if table.columns or kinds else "none"
            what = f"{table.name} has no column {column}; its columns are {shown}."
            raise UserError(what, f"Rename the right one to {column}. {COLUMNS_HELP}")
    label = _choose_label(table, labels) if labels else ""
    notes = []
    if label and label != _CLASS_COLUMN and (paths[0].lower(), label.lower()) != ("path", "label"):
        notes.append(f"{table.name}: images are in the column {paths[0]!r}, classes in {label!r}.")
    split, split_notes = _find_split(table, label)
    group, image_id = (
        next((column for column in table.find((name,)) if column not in (paths[0], label)), "")
        for name in ("group", "id")
    )
    columns = TableColumns(paths[0], label, split, group, image_id)
    classes = set(table.columns[label]) if label == _CLASS_COLUMN else set()
    if classes:
        notes.append(f"{table.name}: images are in the column {paths[0]!r}, and every class has a column of its own.")
    if unused := [name for name in (*table.columns, *table.unread) if name not in columns and name not in classes]:
        notes.append(f"{table.name}: columns that are not used: {format_names(unused, 5)}.")
    return columns, [*notes, *split_notes]


def has_label_column(table: Table) -> bool:
    """Return whether a column holds classes, by its name."""
    return bool(table.find((_CLASS_COLUMN, *LABEL_NAMES)))


def with_one_hot_labels(table: Table, path: str) -> Table:
    """Return the table with a column of classes, if each class has a column of its own with a 1 in its rows, else 0.

    Columns called like splits are flags of another kind.
    """
    others = {column: values for column, values in table.columns.items() if column != path and values}
    if table.find(LABEL_NAMES) or len(others) < 2:
        return table
    numbers = {column: [value.strip().removesuffix(".0") for value in values] for column, values in others.items()}
    names = [column for column, values in numbers.items() if set(values) <= {"0", "1"}]
    rows = list(zip(*(numbers[name] for name in names), strict=True))
    if len(names) < 2 or any(map(split_word, names)) or any(row.count("1") != 1 for row in rows):
        return table
    return replace(table, columns={**table.columns, _CLASS_COLUMN: [names[row.index("1")] for row in rows]})


def choose_path_column(table: Table, quality: Callable[[str], int]) -> str | None:
    """Return the column whose values fit files best, or None if none of them names any.

    A row number may be the name of a file without its extension, so whole paths count more than file names, and these
    more than names without extension. Only a column with a usual name may hold numbers or miss most files.

    Raises:
        UserError: several columns fit equally well, but differ in their values.
    """
    usual = table.find(PATH_NAMES)
    found: dict[str, int] = {}
    for column in [*usual, *(column for column in table.columns if column not in usual)]:
        values = [value for value in table.columns[column] if value.strip()]
        values = values[:: max(1, len(values) // _SAMPLED_ROWS)]
        qualities = [quality(value) for value in values]
        is_usual = column in usual or not _PATH_WORDS.isdisjoint(words_of(column))
        is_path = any(qualities) if is_usual else sum(map(bool, qualities)) >= len(values) / 2
        if values and is_path and (is_usual or not all(value.strip().isdecimal() for value in values)):
            found[column] = max(qualities)
    if not found:
        return None
    best = [column for column in found if found[column] == max(found.values())]
    named = [column for column in best if column in usual] or best
    if len({tuple(table.columns[column]) for column in named}) > 1 and found[named[0]] == STEM:
        what = f"{table.name}: the columns {format_names(named)} could both name images."
        raise UserError(what, "Rename the column of file names to path.")
    return named[0]


def _find_split(table: Table, label: str) -> tuple[str, list[str]]:
    """Return the column of splits, and a note on a column with a usual name that is not used as one."""
    usual = [column for column in table.find(SPLIT_NAMES) if column != label]
    for column in usual:
        values = {value.strip() for value in table.columns[column]} - {""}
        if column.lower() == "split" or (values and all(map(split_word, values))):
            return column, []
    other = next((value for column in usual[:1] for value in table.columns[column] if value.strip()), "")
    if not other:
        return "", []
    note = f"{table.name}: the column {usual[0]!r} is not used as the split: {other[:40]!r} is not train, val or test."
    return "", [note]


def _choose_label(table: Table, labels: Sequence[str]) -> str:
    """Return the column of class names; of columns that mean the same, one with text rather than numbers."""
    exact = next((column for column in labels if column.lower() == "label"), "")
    counts = {column: len(set(table.columns[column])) for column in labels}
    pairs = {tuple(values) for values in zip(*(table.columns[column] for column in labels), strict=True)}
    if set(counts.values()) <= {len(pairs)}:  # one to one
        texts = [column for column in labels if not all(map(is_number, table.columns[column]))]
        return next(iter(texts), labels[0])
    if exact:
        return exact
    shown = ", ".join(f"{column!r} ({counts[column]:,} classes)" for column in labels)
    raise UserError(f"{table.name} has several columns of classes: {shown}.", "Rename the right one to label.")
