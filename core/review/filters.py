"""Filters of the review queue: which items are shown and in which order, as the parameters of a page's address."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from core.decisions.causes import CAUSES
from core.review.review_queue import Queue
from core.review.review_state import VERDICTS, ReviewState
from core.tasks.tasklist import TaskList

STATES = ("undecided", *VERDICTS[1:], "conflict", "commented")
ROLES = ("", "support", "query")
PAGE_SIZES = (60, 120, 200, 500)
_CHOICES: dict[str, tuple[str, ...]] = {"state": STATES, "cause": CAUSES}
"""All values of the filters of which several may be chosen from a closed set."""
_LASSO_CORNERS = 80
"""An address of that many corners is shorter than 2,000 characters, which every browser and proxy accepts."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Filters:
    """A selection of queue items and their order; the defaults show everything, most suspicious first.

    Attributes:
        given, suggested: Class names; none means all.
        state: Some of :data:`STATES`; none means all, several mean any of them.
        cause: Only items whose decision has one of these causes (:data:`core.decisions.causes.CAUSES`); none means all.
        differ: Only items with a likelier class than the given one (:attr:`Queue.has_likelier_class`).
        copies: Only images that have a near-duplicate.
        role, task: Only items that occur in that role (``support`` or ``query``), and in that task.
        find: A part of an image's or task's id.
        score, low, high: Only items whose score is within these percentiles (0 to 100) of the queue.
        lasso: Corners of a polygon on the map; empty means everywhere.
        order, ascending: The score to order by; smallest first or largest first.
        size: Tiles per page, one of :data:`PAGE_SIZES`.
    """

    given: tuple[str, ...] = ()
    suggested: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    cause: tuple[str, ...] = ()
    differ: bool = False
    copies: bool = False
    role: str = ""
    task: str = ""
    find: str = ""
    score: str = "suspicion"
    low: int = 0
    high: int = 100
    lasso: tuple[Point, ...] = ()
    order: str = "suspicion"
    ascending: bool = False
    size: int = 120

    def to_params(self) -> dict[str, list[str]]:
        """Return what differs from the defaults as the parameters of an address."""
        default = Filters()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _to_texts(value) for name, value in values.items() if value != getattr(default, name)}


PARAMETERS = tuple(field.name for field in fields(Filters))
"""Names of the parameters in an address."""


def from_params(params: Mapping[str, Sequence[str]]) -> Filters:
    """Return the filters in an address; invalid parameters are left at their defaults."""
    valid: dict[str, object] = {}
    for name in PARAMETERS:
        if values := list(params.get(name, [])):
            with suppress(ValueError):
                valid[name] = _from_texts(name, values)
    return Filters(**valid)  # type: ignore[arg-type]


def _to_texts(value: object) -> list[str]:
    if isinstance(value, bool):
        return ["1" if value else "0"]
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return [";".join(f"{x:.4g},{y:.4g}" for x, y in value)]
    return [str(part) for part in value] if isinstance(value, tuple) else [str(value)]


def _from_texts(name: str, values: list[str]) -> object:
    value, default = values[0], getattr(Filters(), name)
    if name == "lasso":
        corners = [corner.split(",") for corner in value.split(";")][:_LASSO_CORNERS]
        polygon = tuple((float(x), float(y)) for x, y in corners)
        if len(polygon) < 3 or not all(math.isfinite(x) for corner in polygon for x in corner):
            raise ValueError(value)
        return polygon
    if name in _CHOICES:
        return tuple(one for one in values if one in _CHOICES[name])
    if isinstance(default, tuple):
        return tuple(values)
    if isinstance(default, bool):
        return value == "1"
    if isinstance(default, int):
        number = int(value)
        if number not in (PAGE_SIZES if name == "size" else range(101)):
            raise ValueError(value)
        return number
    if name == "role" and value not in ROLES:
        raise ValueError(value)
    return value


def simplify_lasso(corners: Sequence[Point]) -> tuple[Point, ...]:
    """Return a drawn line with so few corners, of four digits, that it passes into an address."""
    step = max(1, -(-len(corners) // _LASSO_CORNERS))
    return tuple((float(f"{x:.4g}"), float(f"{y:.4g}")) for x, y in corners[::step])


def filtered_positions(
    queue: Queue,
    state: ReviewState,
    filters: Filters,
    tasks: TaskList,
    places: pd.DataFrame | None = None,
    pairs: pd.DataFrame | None = None,
) -> np.ndarray:
    """Return the positions of the items that pass the filters, ``(items,)`` int32, in their order.

    Args:
        tasks: The training tasks, for roles and tasks in a queue of images.
        places: ``map.parquet`` (image_id, x, y), for the lasso; None if there is no map.
        pairs: Near-duplicates (image_id, other); None if they were not searched.
    """
    items, passes = queue.table, np.ones(len(queue), dtype=bool)
    for classes, column in ((filters.given, "class"), (filters.suggested, "suggested")):
        if classes:
            passes &= items[column].isin(classes).to_numpy()
    if filters.differ:
        passes &= queue.has_likelier_class
    if filters.copies and pairs is not None:
        passes &= items["image_id"].isin({*pairs["image_id"], *pairs["other"]}).to_numpy()
    if filters.role or filters.task:
        passes &= _occurs_in(queue, tasks, filters)
    if filters.find:
        found = [
            items[column].str.contains(filters.find, case=False, regex=False) for column in ("image_id", "task_id")
        ]
        passes &= (found[0] | found[1]).to_numpy()
    if (filters.low, filters.high) != (0, 100) and filters.score in queue.scores:
        percentile = queue.percentiles[filters.score]
        passes &= (percentile >= filters.low) & (percentile <= filters.high)
    if filters.state:
        passes &= _has_state(state, filters.state)
    if filters.cause:
        passes &= _has_cause(state, filters.cause)
    if filters.lasso and places is not None:
        inside = points_inside(places[["x", "y"]].to_numpy(float), filters.lasso)
        passes &= items["image_id"].isin(places["image_id"][inside]).to_numpy()
    positions = np.flatnonzero(passes)
    if filters.order in queue.scores and (filters.order != "suspicion" or filters.ascending):
        values = items[filters.order].to_numpy(float)[positions]
        values = np.nan_to_num(values if filters.ascending else -values, nan=np.inf)
        positions = positions[np.argsort(values, kind="stable")]
    return positions.astype(np.int32)


def _occurs_in(queue: Queue, tasks: TaskList, filters: Filters) -> np.ndarray:
    rows = queue.table if queue.level == "instance" else tasks.rows
    wanted = {"role": filters.role, "task_id": filters.task}
    passes = np.all([rows[column] == value for column, value in wanted.items() if value], axis=0)
    return passes if queue.level == "instance" else queue.table["image_id"].isin(rows["image_id"][passes]).to_numpy()


def _has_state(review: ReviewState, states: Sequence[str]) -> np.ndarray:
    passes = np.isin(review.verdict, [STATES.index(state) for state in states])  # the first states are the verdicts
    if "conflict" in states:
        passes[list(review.conflicts)] = True
    if "commented" in states:
        passes[list(review.comments)] = True
    return passes


def _has_cause(review: ReviewState, causes: Sequence[str]) -> np.ndarray:
    passes = np.zeros(review.size, dtype=bool)
    passes[[position for position, entry in review.entries.items() if entry.cause in causes]] = True
    return passes


def points_inside(points: np.ndarray, polygon: Sequence[Point]) -> np.ndarray:
    """Return ``(n,)`` of bool: which of the points ``(n, 2)`` are inside the polygon (even-odd rule)."""
    x, y = points[:, 0], points[:, 1]
    inside = np.zeros(len(points), dtype=bool)
    for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside
