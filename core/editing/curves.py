"""Removal curves: what to remove at every point of a curve of accuracy against the share removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.editing.settings import CurveSettings
from core.tasks.changes import Changes

_RANDOM_ORDER_SEED = 7


@dataclass(frozen=True)
class Point:
    """A point of a curve: one order, share and seed."""

    order: str
    share: float
    seed: int


def points(settings: CurveSettings) -> Iterator[Point]:
    """Yield all points, seed by seed, so that a cancelled curve has complete seeds; share 0 once per seed.

    The settings name their orders.
    """
    for seed in range(settings.seeds):
        for share in sorted(set(settings.shares)):
            for order in settings.orders if share else ("none",):
                yield Point(order, share, seed)


def removal_of(table: pd.DataFrame, by: str, point: Point) -> Changes:
    """Return which ``tasks`` or ``images`` a point removes.

    The table has task_id or image_id, score and loss; for the order ``recommended`` also suspicion.
    """
    count = round(point.share * len(table))
    if point.order == "random":
        rows = np.random.default_rng([_RANDOM_ORDER_SEED, point.seed]).permutation(len(table))[:count]
    elif point.order in ("loss", "recommended"):
        column = "loss" if point.order == "loss" else "suspicion"
        rows = np.argsort(-table[column].to_numpy(), kind="stable")[:count]
    else:
        rows = np.argsort(table["score"].to_numpy(), kind="stable")[:count]
    ids = frozenset(table["task_id" if by == "tasks" else "image_id"].iloc[rows])
    return Changes(tasks=ids) if by == "tasks" else Changes(images=ids)
