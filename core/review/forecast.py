"""How many wrong labels are still in there, at every depth of the queue, and how sure is that?

**Before anything is decided.** A classifier that has not seen a label says how likely it is, if it is right; if it is
wrong, it may be any other class. The share of wrong labels under which all of them are likeliest says how many there
are.

**Once items are decided.** That curve may be wrong about how many wrong labels there are, and about how sharply they
and the right ones part: it may be stretched along the logarithm of the depth, and its logits multiplied. What the
reviewer found says by how much (Bayes on a grid). Some wrong labels look right to every score and lie anywhere; every
label that was found right makes more of them less likely (gamma and Poisson). The intervals hold what is left open, and
the chance of the single items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

EVIDENCE = "evidence"
"""Column of the queue: log-likelihood ratio of a wrong label against a right one."""
LEVEL = 90  # percent, of the intervals
_STRETCH, _SHARPEN = 0.25, 0.5
"""Prior standard deviations of the logarithms of the stretch and of the factor of the logits."""
_OUTLIER_RATE = 0.1
"""Share of decisions that say nothing of the curve, so that one right label high up does not flatten it."""
_DECISION_WEIGHT = 0.5
"""Of a decision, in decisions that were independent and of a curve that is quite right."""
_UNSEEN_ERROR_RATE, _SHAPE = 0.01, 0.5
"""Share of the wrong labels that no score sees, on average, and the shape of the gamma distribution of it."""
_FINE, _GRID, _DRAWS, _LEAST, _STEPS = 41, 11, 300, 1e-4, 500


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

    def remaining_errors(self, errors_found: int) -> RemainingErrors:
        """Return how many label errors nobody has found yet.

        Args:
            errors_found: Number of items found wrong, of those that the forecast was told.
        """
        ends = (self.remaining, self.remaining_low, self.remaining_high)
        return RemainingErrors(*(max(0.0, float(curve[0]) - errors_found) for curve in ends))


class RemainingErrors(NamedTuple):
    """The estimated number of label errors that are left, with its 90 % interval."""

    estimate: float
    low: float
    high: float


def forecast(items: pd.DataFrame, decided: Mapping[int, bool] | None = None, seed: int = 0) -> Forecast | None:
    """The forecast for a queue; None where it was not calibrated.

    Args:
        items: Of a queue, most suspicious first.
        decided: By position in the queue: was the label wrong?
    """
    if EVIDENCE not in items or not len(items):
        return None
    n = len(items)
    each = probabilities(items[EVIDENCE].to_numpy(dtype=np.float64))
    # None is likelier wrong than one before it.
    falling = IsotonicRegression(increasing=False).fit_transform(np.arange(n), each)
    prior = np.clip(falling, _LEAST, 1 - _LEAST)
    known = np.full(n, np.nan)
    for position, wrong in (decided or {}).items():
        known[position] = wrong
    stretch, factor, weight = _posterior(logit(prior), known)
    rng = np.random.default_rng(seed)
    p = np.empty((_DRAWS, n))
    for number, which in enumerate(rng.choice(len(weight), _DRAWS, p=weight)):
        p[number] = _curve(logit(prior), np.arange(n), stretch[which], factor[which])
    kept = int((known == 0).sum())
    rate = _SHAPE / (_UNSEEN_ERROR_RATE * prior.mean()) + kept
    hidden = rng.gamma(_SHAPE, 1 / rate, _DRAWS)[:, None]
    p = np.where(np.isnan(known), p + (1 - p) * np.minimum(hidden, 1), np.nan_to_num(known))
    below = np.zeros((_DRAWS, n + 1))
    below[:, 1:] = np.cumsum(rng.random(p.shape) < p, 1)
    left = below[:, -1:] - below
    low, high = 50 - LEVEL / 2, 50 + LEVEL / 2
    found_low, found_high = np.percentile(below, [low, high], axis=0)
    left_low, left_high = np.percentile(left, [low, high], axis=0)
    found = np.r_[0.0, np.cumsum(p.mean(0))]
    return Forecast(found, found_low, found_high, found[-1] - found, left_low, left_high, p.mean(0))


def share_wrong(evidence: np.ndarray) -> float:
    """The share of wrong labels under which the evidence is likeliest (Saerens et al. 2002, "Adjusting the outputs of
    a classifier to new a priori probabilities").

    Args:
        evidence: ``(n,)``: log-likelihood ratio of wrong against right, of every item.
    """
    share = 0.1
    for _ in range(_STEPS):
        before, share = share, float(np.clip(expit(evidence + logit(share)).mean(), _LEAST, 1 - _LEAST))
        if abs(share - before) < 1e-6:
            break
    return share


def probabilities(evidence: np.ndarray) -> np.ndarray:
    """``(n,)``: that the label of every item is wrong."""
    return np.asarray(expit(evidence + logit(share_wrong(evidence))), dtype=np.float64)


def _curve(logits: np.ndarray, at: np.ndarray, stretch: float, factor: float) -> np.ndarray:
    """The probabilities at positions ``at``, of the curve stretched and sharpened."""
    depth = np.arange(1, len(logits) + 1)
    return expit(factor * np.interp((at + 1) / stretch, depth, logits))


def _posterior(logits: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grid of stretches and factors, and how probable each is: ``(grid,)`` three times."""
    steps = (np.linspace(-2.5, 2.5, many) for many in (_FINE, _GRID))
    one, two = (part.ravel() for part in np.meshgrid(*steps))
    stretch, factor = np.exp(_STRETCH * one), np.exp(_SHARPEN * two)
    at = np.flatnonzero(~np.isnan(known))
    score = -(one**2 + two**2) / 2
    if len(at):
        wrong = known[at]
        for number in range(len(score)):
            p = _OUTLIER_RATE + (1 - 2 * _OUTLIER_RATE) * _curve(logits, at, stretch[number], factor[number])
            score[number] += _DECISION_WEIGHT * float(np.log(np.where(wrong > 0, p, 1 - p)).sum())
    weight = np.exp(score - score.max())
    return stretch, factor, weight / weight.sum()
