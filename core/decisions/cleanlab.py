"""Read the label issues of cleanlab as decisions or as proposals to review.

The tables are read as ``to_csv`` or ``to_parquet`` saves them (cleanlab 2.9):

- ``Datalab.get_issues("label")``: is_label_issue, label_score, given_label, predicted_label (class names).
- ``CleanLearning.get_label_issues()`` and ``find_label_issues()``: is_label_issue, label_quality, given_label,
  predicted_label (numbers).
- ``pandas.Series(cleanlab.filter.find_label_issues(...))``: the mask, or with ``return_indices_ranked_by`` the
  positions of the issues.

A column ``image_id`` names the images; else an index of text does; else an index of integers is the position in
the image set; else the rows are the image set's, in its order. ``given_label`` must be the class that the image has, in
the image set or in a training task, in every row, so that a table in another order is refused.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.decisions.records import Decision, Item, Verdict
from core.runtime.errors import UserError
from core.runtime.progress import format_count
from core.tasks.tasklist import TaskList

_ISSUE, _SCORES = "is_label_issue", ("label_score", "label_quality")


def is_cleanlab(table: pd.DataFrame) -> bool:
    """Return whether this is a table by cleanlab rather than one of decisions."""
    return _ISSUE in table.columns or _unnamed_column(table) is not None


def issue_decisions(
    table: pd.DataFrame, source: str, images: ImageSet, tasks: TaskList, as_: str, reviewer: str
) -> tuple[list[Decision], list[str]]:
    """Return the decisions that the issues in a table become, worst first, and sentences on what was left out.

    Args:
        tasks: The training tasks; issues on images outside them are left out.
        as_: The verdict, one of :data:`core.decisions.records.ISSUE_VERDICTS`.

    Raises:
        UserError: a row names no image or no class, the table is in another order than the images, or there is no
            predicted class to relabel to.
    """
    table, positions, issue = _issues(table, source, images)
    classes = _classes(table, source, images, tasks, positions)
    if as_ == "relabel" and classes is None:
        raise UserError(
            f"{source}: without the columns given_label and predicted_label there is no class to relabel to.",
            "Save the table of Datalab or CleanLearning, or choose unsure or remove.",
        )
    score = next((pd.to_numeric(table[name], errors="coerce").to_numpy() for name in _SCORES if name in table), None)
    rows = np.flatnonzero(issue)
    if score is not None:
        rows = rows[np.argsort(score[rows], kind="stable")]
    used = set(tasks.rows["image_id"])
    inside = [row for row in rows if str(images.ids[positions[row]]) in used]
    decisions, unchanged = [], 0
    for row in inside:
        verdict, label, reason = as_, None, "cleanlab: label issue"
        if score is not None:
            reason += f", quality {score[row]:.3g}"
        if classes is not None:
            given, predicted = (int(labels[row]) for labels in classes)
            reason += f", predicted {images.class_names[predicted]}"
            if as_ == "relabel" and given == predicted:
                verdict, unchanged = "unsure", unchanged + 1
            elif as_ == "relabel":
                label = predicted
        item = Item("image", image_id=str(images.ids[positions[row]]))
        why = reason, reviewer, f"cleanlab:{source}"
        decisions.append(Decision(item, cast(Verdict, verdict), label, *why, cause="label-error"))
    notes = []
    if len(rows) > len(inside):
        notes.append(
            f"{format_count(len(rows) - len(inside), 'issue')} on images that are in no training task: left out"
        )
    if unchanged:
        notes.append(
            f"{format_count(unchanged, 'issue')} whose predicted class is the given one: unsure instead of relabelled"
        )
    return decisions, notes


def _unnamed_column(table: pd.DataFrame) -> str | None:
    """Return the single column of a mask or of positions that was saved without a name; None if there is none."""
    columns = [str(name) for name in table.columns if not _is_index(name)]
    return columns[0] if len(columns) == 1 and columns[0] in ("0", "index", "indices", "label_issues") else None


def _is_index(name: object) -> bool:
    return str(name).startswith("Unnamed: ") or str(name) == "__index_level_0__"


def _issues(table: pd.DataFrame, source: str, images: ImageSet) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return the table, the position of every row in the image set, and whether it is an issue."""
    table = table.rename(columns=str)
    name = _ISSUE if _ISSUE in table.columns else cast(str, _unnamed_column(table))
    if name == _ISSUE or {str(value).lower() for value in table[name]} <= {"true", "false"}:
        return table, _positions(table, source, images), _as_bools(table[name], source, name)
    positions = _positions_of_numbers(table[name], source, name, len(images))
    return table, positions, np.ones(len(positions), bool)


def _as_bools(column: pd.Series, source: str, name: str) -> np.ndarray:
    words = column.map(lambda value: str(value).lower())
    bad = np.flatnonzero(~words.isin(["true", "1", "false", "0"]))
    if bad.size:
        raise UserError(f"{source}, row {bad[0] + 1}: {name} is {column.iloc[bad[0]]!r}.", "Use True or False.")
    return words.isin(["true", "1"]).to_numpy(bool)


def _positions(table: pd.DataFrame, source: str, images: ImageSet) -> np.ndarray:
    if "image_id" in table.columns:
        return _positions_of_ids(table["image_id"], source, "image_id", images)
    if unnamed := next(filter(_is_index, table.columns), None):
        index = table[unnamed]
    elif not isinstance(table.index, pd.RangeIndex):
        index = table.index.to_series()
    elif len(table) == len(images):
        return np.arange(len(images))
    else:
        raise UserError(
            f"{source} has {len(table):,} rows but {images.name} has {len(images):,} images, and no column names them.",
            "Add a column image_id, or save the table with its index.",
        )
    if not np.isnan(_whole_numbers(index)).any():
        return _positions_of_numbers(index, source, "index", len(images))
    return _positions_of_ids(index, source, "index", images)


def _positions_of_ids(column: pd.Series, source: str, what: str, images: ImageSet) -> np.ndarray:
    positions = [images.index.get(str(value), -1) for value in column]
    if -1 in positions:
        row = positions.index(-1)
        raise UserError(
            f"{source}, row {row + 1}: {what} {str(column.iloc[row])!r} is not in the image set {images.name}.",
            "Check the ids, or delete the row.",
        )
    return _check_unique(np.array(positions, np.int64), source, what)


def _positions_of_numbers(column: pd.Series, source: str, what: str, most: int) -> np.ndarray:
    numbers = _whole_numbers(column)
    bad = np.flatnonzero(~((numbers >= 0) & (numbers < most)))  # NaN among them
    if bad.size:
        raise UserError(
            f"{source}, row {bad[0] + 1}: {what} is not a position in the image set, which has {most:,} images.",
            "Add a column image_id.",
        )
    return _check_unique(numbers.astype(np.int64), source, what)


def _check_unique(positions: np.ndarray, source: str, what: str) -> np.ndarray:
    order = np.argsort(positions, kind="stable")
    twice = np.flatnonzero(np.diff(positions[order]) == 0)
    if twice.size:
        raise UserError(
            f"{source}, row {order[twice[0] + 1] + 1}: {what} names the same image as row {order[twice[0]] + 1}.",
            "Keep one of the rows.",
        )
    return positions


def _whole_numbers(column: pd.Series) -> np.ndarray:
    """Return ``(n,)`` of float: whole numbers, and NaN for anything else."""
    if column.dtype.kind in "mM":  # pandas would count the ticks of dates and durations
        return np.full(len(column), np.nan)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):  # infinity
        return np.where(numbers % 1 == 0, numbers, np.nan)


def _classes(
    table: pd.DataFrame, source: str, images: ImageSet, tasks: TaskList, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the numbers of the given and the predicted classes; None without these columns.

    They are read as names or as numbers, whichever makes every given label right.
    """
    if "given_label" not in table.columns:
        return None
    names = images.class_names
    number_of = {name: number for number, name in enumerate(names)}

    def by_name(column: pd.Series) -> np.ndarray:
        return np.array([number_of.get(str(value), -1) for value in column], np.int64)

    def by_number(column: pd.Series) -> np.ndarray:
        numbers = _whole_numbers(column)
        return np.where((numbers >= 0) & (numbers < len(names)), numbers, -1).astype(np.int64)

    pairs = tasks.rows[["image_id", "class"]].drop_duplicates().itertuples(index=False)
    allowed = {(images.index[image], number_of[name]) for image, name in pairs} | set(enumerate(images.labels.tolist()))
    given = [read(table["given_label"]) for read in (by_name, by_number)]
    right = [
        np.array([pair in allowed for pair in zip(positions.tolist(), labels.tolist(), strict=True)], bool)
        for labels in given
    ]
    best = int(right[1].sum() > right[0].sum())
    if not right[best].all():
        row = int(np.flatnonzero(~right[best])[0])
        image = positions[row]
        raise UserError(
            f"{source}, row {row + 1}: given_label is {table['given_label'].iloc[row]!r}, but image "
            f"{str(images.ids[image])!r} is {names[images.labels[image]]!r}.",
            "The rows may be in another order than the image set: add a column image_id.",
        )
    if "predicted_label" not in table.columns:
        return None
    predicted = (by_name, by_number)[best](table["predicted_label"])
    if (predicted < 0).any():
        row = int(np.flatnonzero(predicted < 0)[0])
        value = table["predicted_label"].iloc[row]
        raise UserError(
            f"{source}, row {row + 1}: predicted_label is {value!r}, which is not a class of {images.name}.",
            "Use the names of its classes, or their numbers from 0.",
        )
    return given[best], predicted
