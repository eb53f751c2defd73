"""How far reviewers agree: shares and Cohen's kappa."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from core.decisions.log import DecisionLog, Entry, Item
from core.runtime.errors import UserError

BOOTSTRAP_DRAWS = 2_000
"""Enough for the ends of the interval to vary by less than 0.01 between seeds."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Agreement:
    """The agreement of two reviewers on the items that both decided for one cause (keep, remove, relabel).

    Attributes:
        items: Number of items that both decided for the same cause.
        equal: Share of them with the same decision.
        kappa: Cohen's kappa: 1 is full agreement, 0 what chance would give; NaN where every decision is the same.
        low, high: Its 95 % interval; NaN where kappa is.
        differing: The pairs of decisions that differ, in the order of the reviewers.
    """

    items: int
    equal: float
    kappa: float
    low: float
    high: float
    differing: tuple[tuple[Entry, Entry], ...]


def agreement(log: DecisionLog, one: str, two: str) -> Agreement:
    """Return how far the decisions of two reviewers agree, each by :meth:`DecisionLog.decisions_of`.

    Relabelling to different classes is disagreement. "unsure" is no judgement, so such items are left out. So are items
    that the two decided for different causes: who removes an image as a duplicate does not judge its label.
    Kappa is that of Cohen, J. (1960), A coefficient of agreement for nominal scales. Its interval is the percentile
    bootstrap over items; with few items, or none that differ, it is too narrow.

    Raises:
        UserError: the two are the same reviewer, or there is no item that both decided for the same cause.
    """
    if one == two:
        raise UserError(f"“{one}” cannot be compared with the same reviewer.", "Name two reviewers.")
    first, second = _judgements(log, one), _judgements(log, two)
    pairs = [(a, second[judged]) for judged, a in first.items() if judged in second]
    if not pairs:
        raise UserError(
            f"No item was decided by both “{one}” and “{two}” for the same cause.", "Let both decide on the same items."
        )
    outcomes = [[f"{entry.verdict} {entry.label}" for entry in side] for side in zip(*pairs, strict=True)]
    differing = tuple((a, b) for a, b in pairs if a.outcome != b.outcome)
    if len({category for side in outcomes for category in side}) == 1:
        return Agreement(len(pairs), 1.0, math.nan, math.nan, math.nan, differing)
    low, high = _interval(confusion_matrix(*outcomes))
    equal = 1 - len(differing) / len(pairs)
    return Agreement(len(pairs), equal, float(cohen_kappa_score(*outcomes)), low, high, differing)


def pairwise_agreement(log: DecisionLog, reviewers: Sequence[str]) -> list[dict[str, Any]]:
    """Return the agreement of every two reviewers who decided on some of the same items for one cause, for JSON."""
    judged = {name: _judgements(log, name).keys() for name in reviewers}
    rows = []
    for one, two in combinations(reviewers, 2):
        if judged[one] & judged[two]:
            figures = agreement(log, one, two)
            numbers = {name: getattr(figures, name) for name in ("equal", "kappa", "low", "high")}
            finite = {name: None if math.isnan(value) else value for name, value in numbers.items()}
            rows.append({"reviewers": [one, two], "items": figures.items, **finite})
    return rows


def _judgements(log: DecisionLog, reviewer: str) -> dict[tuple[Item, str], Entry]:
    """Return a reviewer's own final decisions by item and cause."""
    own = log.decisions_of(reviewer).items()
    return {(item, entry.cause): entry for item, entry in own if entry.is_final}


def _interval(table: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval of kappa over resampled items, whose table of counts is multinomial."""
    n, size = int(table.sum()), len(table)
    counts = np.random.default_rng(0).multinomial(n, table.ravel() / n, BOOTSTRAP_DRAWS)
    tables = counts.reshape(-1, size, size) / n
    observed = np.trace(tables, axis1=1, axis2=2)
    expected = (tables.sum(1) * tables.sum(2)).sum(1)
    undefined = expected == 1  # every drawn item has the same decision
    kappa = (observed - expected)[~undefined] / (1 - expected[~undefined])
    if not len(kappa):
        return math.nan, math.nan
    low, high = np.quantile(kappa, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
