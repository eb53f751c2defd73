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

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.decisions.records import Decision, Item, Verdict
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList

_ISSUE, _SCORES = "is_label_issue", ("label_score", "label_quality")
_TRUE, _FALSE = {"true", "1"}, {"false", "0"}


def is_cleanlab(table: pd.DataFrame) -> bool:
    """Return whether this is a table by cleanlab rather than one of decisions."""
    return _ISSUE in table.columns or _unnamed_column(table) is not None


def issue_decisions(
    table: pd.DataFrame, source: str, images: ImageSet, tasks: TaskList, as_: str, reviewer: str
) -> tuple[list[Decision], list[str]]:
    """Return the decisions that the issues in a table become, worst first, and sentences on what was left out.

    Args:
        source: Name of the file, for messages.
        tasks: The training tasks; issues on images outside them are left out.
        as_: The verdict, one of :data:`core.decisions.records.ISSUE_VERDICTS`.

    Raises:
        UserError: a row names no image or no class, the table is in another order than the images, there is no
            predicted class to relabel to, or no issue at all.
    """
    table, positions, issue = _issues(table, source, images)
    given = _classes(table, "given_label", source, images, tasks, positions)
    predicted = _classes(table, "predicted_label", source, images, tasks, positions) if given is not None else None
    if as_ == "relabel" and predicted is None:
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
        verdict, label, predicted_label = as_, None, None if predicted is None else int(predicted[row])
        if as_ == "relabel" and given is not None and predicted_label == given[row]:
            verdict, unchanged = "unsure", unchanged + 1
        elif as_ == "relabel":
            label = predicted_label
        reason = ["cleanlab: label issue"]
        if score is not None:
            reason.append(f"quality {score[row]:.3g}")
        if predicted_label is not None:
            reason.append(f"predicted {images.class_names[predicted_label]}")
        item = Item("image", image_id=str(images.ids[positions[row]]))
        decisions.append(
            Decision(item, cast(Verdict, verdict), label, ", ".join(reason), reviewer, f"cleanlab:{source}")
        )
    notes = []
    if len(rows) > len(inside):
        notes.append(f"{len(rows) - len(inside):,} issues on images that are in no training task: left out")
    if unchanged:
        notes.append(f"{unchanged:,} issues whose predicted class is the given one: unsure instead of relabelled")
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
    if _ISSUE in table.columns:
        return table, _positions(table, source, images), _as_bools(table[_ISSUE], source, _ISSUE)
    bare = cast(str, _unnamed_column(table))
    words = {str(value).lower() for value in table[bare]}
    if words <= {"true", "false"}:
        return table, _positions(table, source, images), _as_bools(table[bare], source, bare)
    positions = _positions_of_numbers(table[bare], source, bare, len(images))
    return table, positions, np.ones(len(positions), bool)


def _as_bools(column: pd.Series, source: str, name: str) -> np.ndarray:
    words = column.map(lambda value: str(value).lower()).to_numpy(object)
    bad = [row for row, word in enumerate(words) if word not in _TRUE | _FALSE]
    if bad:
        raise UserError(f"{source}, row {bad[0] + 1}: {name} is {column.iloc[bad[0]]!r}.", "Use True or False.")
    return np.array([word in _TRUE for word in words], bool)


def _positions(table: pd.DataFrame, source: str, images: ImageSet) -> np.ndarray:
    unnamed = next((name for name in table.columns if _is_index(name)), None)
    if "image_id" in table.columns:
        return _positions_of_ids(table["image_id"], source, "image_id", images)
    if unnamed is not None:
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
    if all(_as_integer(value) is not None for value in index):
        return _positions_of_numbers(index, source, "index", len(images))
    return _positions_of_ids(index, source, "index", images)


def _positions_of_ids(column: Iterable[Any], source: str, what: str, images: ImageSet) -> np.ndarray:
    ids = [str(value) for value in column]
    for row, image_id in enumerate(ids, 1):
        if image_id not in images.index:
            raise UserError(
                f"{source}, row {row}: {what} {image_id!r} is not in the image set {images.name}.",
                "Check the ids, or delete the row.",
            )
    return _check_unique(np.array([images.index[image_id] for image_id in ids], np.int64), source, what)


def _positions_of_numbers(column: Iterable[Any], source: str, what: str, most: int) -> np.ndarray:
    values = [_as_integer(value) for value in column]
    for row, value in enumerate(values):
        if value is None or not 0 <= value < most:
            raise UserError(
                f"{source}, row {row + 1}: {what} is not a position in the image set, which has {most:,} images.",
                "Add a column image_id.",
            )
    return _check_unique(np.array(values, np.int64), source, what)


def _check_unique(positions: np.ndarray, source: str, what: str) -> np.ndarray:
    order = np.argsort(positions, kind="stable")
    twice = np.flatnonzero(np.diff(positions[order]) == 0)
    if twice.size:
        raise UserError(
            f"{source}, row {order[twice[0] + 1] + 1}: {what} names the same image as row {order[twice[0]] + 1}.",
            "Keep one of the rows.",
        )
    return positions


def _as_integer(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _classes(
    table: pd.DataFrame, column: str, source: str, images: ImageSet, tasks: TaskList, positions: np.ndarray
) -> np.ndarray | None:
    """Return a column of classes as numbers, read as names or as numbers, whichever makes every given label right."""
    if column not in table.columns or "given_label" not in table.columns:
        return None
    names = images.class_names
    by_name = {name: number for number, name in enumerate(names)}
    readings = {
        "names": lambda value: by_name.get(str(value), -1),
        "numbers": lambda value: (
            number if (number := _as_integer(value)) is not None and 0 <= number < len(names) else -1
        ),
    }
    right = {}
    allowed = _given_pairs(images, tasks)
    for reading, read in readings.items():
        given = np.array([read(value) for value in table["given_label"]], np.int64)
        right[reading] = np.array(
            [(position, label) in allowed for position, label in zip(positions, given, strict=True)], bool
        )
    reading = max(right, key=lambda name: int(right[name].sum()))
    if not right[reading].all():
        row = int(np.flatnonzero(~right[reading])[0])
        image = positions[row]
        raise UserError(
            f"{source}, row {row + 1}: given_label is {table['given_label'].iloc[row]!r}, but image "
            f"{str(images.ids[image])!r} is {names[images.labels[image]]!r}.",
            "The rows may be in another order than the image set: add a column image_id.",
        )
    labels = np.array([readings[reading](value) for value in table[column]], np.int64)
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise UserError(
            f"{source}, row {row + 1}: {column} is {table[column].iloc[row]!r}, which is not a class of {images.name}.",
            "Use the names of its classes, or their numbers from 0.",
        )
    return labels


def _given_pairs(images: ImageSet, tasks: TaskList) -> set[tuple[int, int]]:
    """Return (position, class number) of every class of every image, in the image set or in a training task."""
    by_name = {name: number for number, name in enumerate(images.class_names)}
    pairs = tasks.rows[["image_id", "class"]].drop_duplicates()
    given = {(images.index[image], by_name[name]) for image, name in pairs.itertuples(index=False)}
    return given | set(enumerate(images.labels.tolist()))
