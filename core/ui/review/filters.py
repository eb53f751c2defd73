"""Which items of a queue are shown, and in which order; the whole of it fits into an address."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from core.tasks.tasklist import TaskList
from core.ui.review.queue import Queue
from core.ui.review.state import VERDICTS, Decided

STATES = ("undecided", "keep", "remove", "relabel", "unsure", "conflict", "commented")
ROLES = ("", "support", "query")
SIZES = (60, 120, 200, 500)
_LASSO_CORNERS = 80

Point = tuple[float, float]


@dataclass(frozen=True)
class Filters:
    """What is shown; the defaults show everything, most suspicious first.

    Attributes:
        given, suggested: Class names; none means all.
        state: Some of :data:`STATES`; none means all, several mean any of them.
        differ: Only where another class than the given one is likelier (:attr:`Queue.believed`).
        copies: Only images that have a near-duplicate.
        role: ``support`` or ``query``: only what occurs in that role.
        task: Only what occurs in that task.
        find: A part of an image's or task's id.
        score, low, high: Only items whose score is within these percentiles (0 to 100) of the queue.
        lasso: Corners of a polygon on the map; empty means everywhere.
        order, ascending: The score to order by; smallest first or largest first.
        size: Tiles a page.
    """

    given: tuple[str, ...] = ()
    suggested: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
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
        """Those parts that are not the default, as the parameters of an address."""
        default = Filters()
        changed = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: _written(value) for name, value in changed.items() if value != getattr(default, name)}

    @property
    def narrowing(self) -> Filters:
        """The same without what only changes the look: what decides which items are shown, and their order."""
        return replace(self, size=Filters.size)


NAMES = tuple(one.name for one in fields(Filters))
"""Names of the parameters."""


def from_params(params: Mapping[str, Sequence[str]]) -> Filters:
    """Filters out of an address; what cannot be understood is left at its default."""
    read: dict[str, object] = {}
    for one in fields(Filters):
        if values := list(params.get(one.name, [])):
            try:
                read[one.name] = _read(one.name, values)
            except ValueError:
                continue
    return Filters(**read)  # type: ignore[arg-type]


def _written(value: object) -> list[str]:
    if isinstance(value, bool):
        return ["1" if value else "0"]
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return [";".join(f"{x:.4g},{y:.4g}" for x, y in value)]
    return [str(one) for one in value] if isinstance(value, tuple) else [str(value)]


def _read(name: str, values: list[str]) -> object:
    value, default = values[0], getattr(Filters(), name)
    if name == "lasso":
        corners = [corner.split(",") for corner in value.split(";")][:_LASSO_CORNERS]
        polygon = tuple((float(x), float(y)) for x, y in corners)
        if len(polygon) < 3 or not all(math.isfinite(one) for corner in polygon for one in corner):
            raise ValueError(value)
        return polygon
    if name == "state":
        return tuple(one for one in values if one in STATES)
    if isinstance(default, tuple):
        return tuple(values)
    if isinstance(default, bool):
        return value == "1"
    if isinstance(default, int):
        number = int(value)
        allowed = number in SIZES if name == "size" else 0 <= number <= 100
        if not allowed:
            raise ValueError(value)
        return number
    if name == "role" and value not in ROLES:
        raise ValueError(value)
    return value


def simplified(corners: Sequence[Point]) -> tuple[Point, ...]:
    """A drawn line with so few corners that it fits into an address, to four digits."""
    step = max(1, -(-len(corners) // _LASSO_CORNERS))
    return tuple((float(f"{x:.4g}"), float(f"{y:.4g}")) for x, y in corners[::step])


def chosen(
    queue: Queue,
    decided: Decided,
    filters: Filters,
    tasks: TaskList,
    places: pd.DataFrame | None = None,
    pairs: pd.DataFrame | None = None,
) -> np.ndarray:
    """Positions of the items that pass, in order.

    Args:
        tasks: The training tasks, for what occurs where.
        places: ``map.parquet`` (image_id, x, y), for the lasso; None if there is no map.
        pairs: Near-duplicates (image_id, other); None if nobody has looked for them.
    """
    items, keep = queue.table, np.ones(len(queue), dtype=bool)
    for classes, column in ((filters.given, "class"), (filters.suggested, "suggested")):
        if classes:
            keep &= items[column].isin(classes).to_numpy()
    if filters.differ:
        keep &= queue.believed
    if filters.copies and pairs is not None:
        keep &= items["image_id"].isin({*pairs["image_id"], *pairs["other"]}).to_numpy()
    if filters.role or filters.task:
        keep &= _occurs(queue, tasks, filters)
    if filters.find:
        keep &= _named(items, filters.find)
    if (filters.low, filters.high) != (0, 100) and filters.score in queue.scores:
        rank = np.asarray(queue.ranks[filters.score])
        keep &= (rank >= filters.low) & (rank <= filters.high)
    if filters.state:
        keep &= _in_state(queue, decided, filters.state)
    if filters.lasso and places is not None:
        there = within(places[["x", "y"]].to_numpy(float), filters.lasso)
        keep &= items["image_id"].isin(places["image_id"][there]).to_numpy()
    positions = np.flatnonzero(keep)
    if filters.order in queue.scores and (filters.order != "suspicion" or filters.ascending):
        values = items[filters.order].to_numpy(float)[positions]
        values = np.nan_to_num(values if filters.ascending else -values, nan=np.inf)
        positions = positions[np.argsort(values, kind="stable")]
    return positions.astype(np.int32)


def _named(items: pd.DataFrame, text: str) -> np.ndarray:
    found = items["image_id"].str.contains(text, case=False, regex=False)
    return (found | items["task_id"].str.contains(text, case=False, regex=False)).to_numpy()


def _occurs(queue: Queue, tasks: TaskList, filters: Filters) -> np.ndarray:
    if queue.level == "instance":
        items = queue.table
        fits = np.ones(len(queue), dtype=bool)
        for column, wanted in (("role", filters.role), ("task_id", filters.task)):
            if wanted:
                fits &= (items[column] == wanted).to_numpy()
        return fits
    rows = tasks.rows
    for column, wanted in (("role", filters.role), ("task_id", filters.task)):
        if wanted:
            rows = rows[rows[column] == wanted]
    return queue.table["image_id"].isin(rows["image_id"]).to_numpy()


def _in_state(queue: Queue, decided: Decided, states: Sequence[str]) -> np.ndarray:
    fits = np.zeros(len(queue), dtype=bool)
    for state in states:
        match state:
            case "undecided":
                fits |= decided.verdict == 0
            case "conflict":
                fits[list(decided.conflicts)] = True
            case "commented":
                fits[list(decided.comments)] = True
            case _:
                fits |= decided.verdict == VERDICTS.index(state)
    return fits


def within(points: np.ndarray, polygon: Sequence[Point]) -> np.ndarray:
    """``(n,)`` of bool: which of the points ``(n, 2)`` lie in the polygon (even-odd rule)."""
    x, y = points[:, 0], points[:, 1]
    inside = np.zeros(len(points), dtype=bool)
    for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside
