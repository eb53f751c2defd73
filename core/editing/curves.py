"""Removal curves: what to remove at every point of a curve of accuracy against the share removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.runtime.errors import UserError
from core.tasks.changes import Changes

ORDERS = ("harmful", "loss", "random")
_RANDOM_ORDER_SEED = 7


@dataclass(frozen=True)
class CurveSettings:
    """What to remove, and how much.

    Attributes:
        by: ``tasks`` or ``images``.
        shares: Shares of all training tasks or images removed, each in [0, 1).
        orders: Which of :data:`ORDERS`.
        seeds: Number of repetitions; a seed draws the random part and the order of the fine-tune's tasks.
    """

    by: str = "tasks"
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    orders: tuple[str, ...] = ORDERS
    seeds: int = 3

    def __post_init__(self) -> None:
        if self.by not in ("tasks", "images"):
            raise UserError(f"Cannot remove by {self.by!r}.", "Use tasks or images.")
        if not self.shares or not all(0 <= share < 1 for share in self.shares):
            raise UserError(
                f"The shares to remove are {', '.join(f'{share:g}' for share in self.shares) or 'empty'}; "
                "each must be in [0, 1).",
                "For example 0,0.1,0.2.",
            )
        if not self.orders or not set(self.orders) <= set(ORDERS):
            raise UserError(f"The orders are {', '.join(self.orders) or 'empty'}.", f"Use {', '.join(ORDERS)}.")
        if self.seeds < 1:
            raise UserError(f"The number of seeds is {self.seeds}.", "Use 1 or more.")


@dataclass(frozen=True)
class Point:
    """A point of a curve: one order, share and seed."""

    order: str
    share: float
    seed: int


def points(settings: CurveSettings) -> Iterator[Point]:
    """Yield all points, seed by seed, so that a cancelled curve has complete seeds; share 0 once per seed."""
    for seed in range(settings.seeds):
        for share in sorted(set(settings.shares)):
            for order in settings.orders if share else ("none",):
                yield Point(order, share, seed)


def removal_of(table: pd.DataFrame, by: str, point: Point) -> Changes:
    """Return what a point removes.

    Args:
        table: Scores with task_id or image_id, score and loss.
        by: ``tasks`` or ``images``.
    """
    count = round(point.share * len(table))
    if point.order == "random":
        rows = np.random.default_rng([_RANDOM_ORDER_SEED, point.seed]).permutation(len(table))[:count]
    elif point.order == "loss":
        rows = np.argsort(-table["loss"].to_numpy(), kind="stable")[:count]
    else:
        rows = np.argsort(table["score"].to_numpy(), kind="stable")[:count]
    ids = frozenset(table["task_id" if by == "tasks" else "image_id"].iloc[rows])
    return Changes(tasks=ids) if by == "tasks" else Changes(images=ids)
