"""Read the rows of a table of images and labels."""

from __future__ import annotations

from typing import NamedTuple

from core.data.readers.common import SPLIT_WORDS, split_word
from core.data.readers.label_columns import TableColumns
from core.data.readers.tables import COLUMNS_HELP, Table, plain_labels
from core.runtime.errors import UserError


class LabelRow(NamedTuple):
    """One row of a table: its place in errors, and the values of its columns without blanks around them.

    A table without a column of classes has empty labels.
    """

    place: str
    path: str
    label: str = ""
    split: str = ""
    group: str = ""
    id: str = ""


def label_rows(table: Table, columns: TableColumns, split: str = "") -> tuple[list[LabelRow], list[str]]:
    """Return the rows of a table and notes on what was changed.

    Args:
        split: The split of all rows, if the table has no column of splits.

    Raises:
        UserError: names the first row whose path, label or id is empty, or whose split has an unknown name.
    """
    if not table.places:
        raise UserError(f"{table.name} has no rows.", COLUMNS_HELP)
    empty = [""] * len(table.places)
    labels, notes = plain_labels(table.columns[columns.label], table.places) if columns.label else (empty, [])
    values = [table.columns[column] if column else empty for column in (columns.path, *columns[2:])]
    rows = []
    for place, label, path, own_split, group, image_id in zip(table.places, labels, *values, strict=True):
        if not path.strip() or (columns.label and not label):
            missing = "label" if path.strip() else "path"
            raise UserError(f"{place}: {missing} is empty.", "Fill it in or delete the row.")
        if columns.id and not image_id.strip():
            raise UserError(f"{place}: id is empty.", "Fill it in, or delete the column.")
        if own_split.strip() and not split_word(own_split):
            allowed = ", ".join(SPLIT_WORDS)
            raise UserError(f"{place}: split is {own_split[:80]!r}.", f"Use one of {allowed}, or leave it empty.")
        chosen = split_word(own_split) if columns.split else split
        rows.append(LabelRow(place, path.strip(), label, chosen, group.strip(), image_id.strip()))
    return rows, notes
