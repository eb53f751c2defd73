"""How many wrong labels are still in there, at every depth of the queue, and how sure is that?

**Before anything is decided.** Planted labels say where in the queue wrong labels of their kind stand. At the top of
the queue hardly a label is right, so that the number of items down to a depth is that of wrong labels: a sum over the
kinds of how many there are of it, times the share of its planted labels that stands so high. Non-negative least squares
give how many (mixture proportion estimation; compare Garg et al. 2021, "Mixture Proportion Estimation and PU
Learning"), and the planted places how they go on further down.

**Once items are decided.** That curve may be wrong about how many wrong labels there are, and about how sharply they
and the right ones part: it may be stretched along the logarithm of the depth, and its logits multiplied. What the
reviewer found says by how much (Bayes on a grid). The intervals hold what is left open, and the chance of the single
items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

ABOVE = "above "
"""Columns of the queue that begin so: share of the planted items of a kind that would stand no lower."""
LEVEL = 90  # percent, of the intervals
_STRETCH, _SHARPEN = 0.25, 0.5
"""Prior standard deviations of the logarithms of the stretch and of the factor of the logits."""
_LAPSE = 0.1
"""Share of decisions that say nothing of the curve, so that one right label high up does not flatten it."""
_WORTH = 0.5
"""Of a decision, in decisions that were independent and of a curve that is quite right."""
_GRID, _DRAWS, _LEAST, _TOP = 15, 300, 1e-4, 0.7


@dataclass(frozen=True, eq=False)
class Forecast:
    """By depth d = 0 ... n: wrong labels among the first d items, and after them, with 90 % intervals.

    Attributes:
        probability: ``(n,)``: that an item's label is wrong; 0 or 1 where it was decided.
    """

    found: np.ndarray
    found_low: np.ndarray
    found_high: np.ndarray
    remaining: np.ndarray
    remaining_low: np.ndarray
    remaining_high: np.ndarray
    probability: np.ndarray


def forecast(items: pd.DataFrame, decided: Mapping[int, bool] | None = None, seed: int = 0) -> Forecast | None:
    """The forecast for a queue; None where it was not calibrated.

    Args:
        items: Of a queue, most suspicious first.
        decided: By position in the queue: was the label wrong?
    """
    kinds = [column for column in items.columns if column.startswith(ABOVE)]
    if not kinds or not len(items):
        return None
    n = len(items)
    prior = np.clip(probabilities(items[kinds].to_numpy(dtype=np.float64).T), _LEAST, 1 - _LEAST)
    known = np.full(n, np.nan)
    for position, wrong in (decided or {}).items():
        known[position] = wrong
    stretch, factor, weight = _posterior(logit(prior), known)
    rng = np.random.default_rng(seed)
    p = np.empty((_DRAWS, n))
    for number, which in enumerate(rng.choice(len(weight), _DRAWS, p=weight)):
        p[number] = _curve(logit(prior), np.arange(n), stretch[which], factor[which])
    p = np.where(np.isnan(known), p, np.nan_to_num(known))
    below = np.zeros((_DRAWS, n + 1))
    below[:, 1:] = np.cumsum(rng.random(p.shape) < p, 1)
    left = below[:, -1:] - below
    low, high = 50 - LEVEL / 2, 50 + LEVEL / 2
    found_low, found_high = np.percentile(below, [low, high], axis=0)
    left_low, left_high = np.percentile(left, [low, high], axis=0)
    found = np.r_[0.0, np.cumsum(p.mean(0))]
    return Forecast(found, found_low, found_high, found[-1] - found, left_low, left_high, p.mean(0))


def shares_above(n: int, places: np.ndarray) -> np.ndarray:
    """``(n,)``: share of the planted items that stand no lower than each of n items, most suspicious first.

    Args:
        places: In [0, 1], of the planted items in the ranking.
    """
    ordered = np.sort(places)
    return np.searchsorted(ordered, np.arange(1, n + 1) / n, side="right") / len(ordered)


def probabilities(above: np.ndarray) -> np.ndarray:
    """``(n,)``: that the label is wrong, of items in the order of suspicion; none is likelier than one before it.

    Args:
        above: ``(kinds, n)``: share of the planted items of each kind that stand no lower.
    """
    n = above.shape[1]
    depth = np.arange(1, n + 1)
    expected = np.minimum(shares_wrong(above) @ above * n, depth)
    gained = np.clip(np.diff(np.r_[0.0, expected]), 0, None)
    fall = IsotonicRegression(increasing=False, y_min=0, y_max=1).fit_transform(depth, gained)
    return np.asarray(fall, dtype=np.float64)


def shares_wrong(above: np.ndarray) -> np.ndarray:
    """``(kinds,)``: how many items are wrong labels of each kind, as shares, from the top of the queue.

    The top reaches to where half of all planted labels stand, and not beyond most of what is found.
    """
    n = above.shape[1]
    reach = float(np.searchsorted(above.mean(0), 0.5))
    found = np.zeros(len(above))
    for _ in range(3):
        depth = np.unique(np.linspace(1, max(reach, 1), 64).round().astype(int))
        weight = 1 / np.sqrt(depth)  # as of counts
        found, _ = nnls(above[:, depth - 1].T * weight[:, None] * n, depth * weight)
        found *= min(1.0, 1 / max(found.sum(), 1e-12))
        reach = min(reach, _TOP * found.sum() * n)
    return found


def _curve(logits: np.ndarray, at: np.ndarray, stretch: float, factor: float) -> np.ndarray:
    """The probabilities at positions ``at``, of the curve stretched and sharpened."""
    depth = np.arange(1, len(logits) + 1)
    return expit(factor * np.interp((at + 1) / stretch, depth, logits))


def _posterior(logits: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grid of stretches and factors, and how probable each is: ``(grid,)`` three times."""
    steps = np.linspace(-2.5, 2.5, _GRID)
    one, two = (part.ravel() for part in np.meshgrid(steps, steps))
    stretch, factor = np.exp(_STRETCH * one), np.exp(_SHARPEN * two)
    at = np.flatnonzero(~np.isnan(known))
    score = -(one**2 + two**2) / 2
    if len(at):
        wrong = known[at]
        for number in range(len(score)):
            p = _LAPSE + (1 - 2 * _LAPSE) * _curve(logits, at, stretch[number], factor[number])
            score[number] += _WORTH * float(np.log(np.where(wrong > 0, p, 1 - p)).sum())
    weight = np.exp(score - score.max())
    return stretch, factor, weight / weight.sum()
