"""How far two reviewers agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from core.decisions.log import DecisionLog, Entry
from core.runtime.errors import UserError

DRAWS = 2_000
LEVEL = 0.95


@dataclass(frozen=True)
class Agreement:
    """Of the items that both decided firmly (keep, remove, or relabel to a class).

    Attributes:
        one: A reviewer.
        two: The other.
        items: How many items both decided.
        equal: Share of them on which they say the same.
        kappa: Cohen's kappa: 1 is full agreement, 0 what chance would give; NaN where both said one thing of all.
        low: Lower end of its 95 % interval; NaN where kappa is.
        high: Upper end.
        differing: The pairs of decisions that differ, ``one``'s first.
    """

    one: str
    two: str
    items: int
    equal: float
    kappa: float
    low: float
    high: float
    differing: tuple[tuple[Entry, Entry], ...]


def agreement(log: DecisionLog, one: str, two: str) -> Agreement:
    """Agreement of what two reviewers stand for, each counted by his own decisions (:meth:`DecisionLog.own`).

    Relabelling to different classes is disagreement. "unsure" is no judgement, so such items are left out.
    Kappa is that of Cohen, J. (1960), A coefficient of agreement for nominal scales. Its interval is the percentile
    bootstrap over items; with few items, or none that differ, it is too narrow.

    Raises:
        UserError: a reviewer is compared with himself, or no item was decided by both.
    """
    if one == two:
        raise UserError(f"“{one}” cannot be compared with himself.", "Name two reviewers.")
    first, second = log.own(one), log.own(two)
    pairs = [(entry, second[item]) for item, entry in first.items() if item in second]
    pairs = [(a, b) for a, b in pairs if a.is_final and b.is_final]
    if not pairs:
        raise UserError(f"No item was decided by both “{one}” and “{two}”.", "Let both decide on some of the same.")
    said = [[_word(entry) for entry in side] for side in zip(*pairs, strict=True)]
    differing = tuple((a, b) for a, b in pairs if a.said != b.said)
    if len({word for side in said for word in side}) == 1:
        return Agreement(one, two, len(pairs), 1.0, math.nan, math.nan, math.nan, differing)
    low, high = _interval(confusion_matrix(*said))
    equal = 1 - len(differing) / len(pairs)
    return Agreement(one, two, len(pairs), equal, float(cohen_kappa_score(*said)), low, high, differing)


def _word(entry: Entry) -> str:
    return entry.verdict if entry.label is None else f"relabel {entry.label}"


def _interval(table: np.ndarray) -> tuple[float, float]:
    """Percentile interval of kappa over resampled items: resampling items is drawing their table of counts."""
    n, size = int(table.sum()), len(table)
    drawn = np.random.default_rng(0).multinomial(n, table.ravel() / n, DRAWS).reshape(DRAWS, size, size) / n
    observed = np.trace(drawn, axis1=1, axis2=2)
    expected = (drawn.sum(1) * drawn.sum(2)).sum(1)
    certain = expected == 1  # one word for all drawn items: agreement that says nothing
    kappa = (observed - expected)[~certain] / (1 - expected[~certain])
    if not len(kappa):
        return math.nan, math.nan
    low, high = np.quantile(kappa, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
