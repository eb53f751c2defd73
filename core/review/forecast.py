"""Estimate the number of label errors remaining at each depth of the queue, with 90 % intervals.

**Before any decision.** A classifier that has not seen a label gives its probability if the label is right; a wrong
label may be any other class. The error rate is the one of highest likelihood (expectation maximisation of Saerens et
al. 2002), and Bayes' rule then gives every item's probability of being an error.

**With decisions.** That curve may be wrong about the number of errors, and about how sharply errors and right labels
are separated: it may be stretched along the logarithm of the depth, and its logits may be scaled. A posterior on a grid
of stretches and scales is computed from the decisions. Some errors look right to every score and lie at any depth;
every label found right makes more of them less likely (gamma-Poisson). The intervals are over draws of all of these and
of each item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

ERROR_LLR = "evidence"
"""Column of the queue: log-likelihood ratio of a wrong label against a right one (its name in files is older)."""
INTERVAL_PERCENT = 90
DRAWS = 300
"""Posterior draws: the 5 % and 95 % quantiles then rest on 15 draws each."""

# The next four are judgements, not estimates. docs/review.md ("How many label errors remain?") gives the coverage of
# the resulting intervals; tests/review/test_forecast.py checks it on simulated queues.
STRETCH_SD = 0.25
"""Prior standard deviation of the logarithm of the stretch: the number of errors is known to about 25 %."""
LOGIT_SCALE_SD = 0.5
"""Prior standard deviation of the logarithm of the scale of the logits."""
OUTLIER_RATE = 0.1
"""Share of decisions that are unrelated to the curve, so that one right label high in the queue does not flatten it."""
UNSEEN_ERROR_RATE = 0.01
"""Prior mean of the share of the errors that no score detects."""
DECISION_WEIGHT = 0.5
"""Power of the likelihood of a decision: below 1, as decisions are not independent and the curve is misspecified
(Grünwald & van Ommen 2017, "Inconsistency of Bayesian inference for misspecified linear models")."""
UNSEEN_SHAPE = 0.5
"""Shape of the gamma prior of the undetected errors: that of Jeffreys' prior for a Poisson rate."""
PROBABILITY_FLOOR = 1e-4
"""Probabilities and rates are kept this far from 0 and 1, where logits are infinite."""
_GRID_SDS = 2.5
"""The grid spans this many prior standard deviations on both sides."""
_STRETCHES, _SCALES = 41, 11
"""Points of the grid; finer in the stretch, which the number of errors depends on."""
_FIRST_ERROR_RATE, _EM_STEPS, _EM_TOLERANCE = 0.1, 500, 1e-6


class RemainingErrors(NamedTuple):
    """The estimated number of label errors that nobody has found, with its 90 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Forecast:
    """Label errors by depth d = 0 ... n: among the first d items (found) and after them (remaining).

    Attributes:
        found, remaining: ``(n + 1,)`` expected numbers; ``_low`` and ``_high`` are the ends of their 90 % intervals.
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
        """Return the number of label errors that nobody has found; ``errors_found`` is that of the same decisions."""
        curves = (self.remaining, self.remaining_low, self.remaining_high)
        return RemainingErrors(*(max(0.0, float(curve[0]) - errors_found) for curve in curves))


def forecast(items: pd.DataFrame, is_wrong: Mapping[int, bool] | None = None, seed: int = 0) -> Forecast | None:
    """Return the forecast for a queue; None if it was not calibrated.

    Args:
        items: The queue's items with the column :data:`ERROR_LLR`, most suspicious first.
        is_wrong: By position in the queue, for decided items: was the label wrong?
            (:attr:`core.decisions.queue_decisions.QueueDecisions.is_wrong`)
    """
    if ERROR_LLR not in items or not len(items):
        return None
    n = len(items)
    unordered = probabilities(items[ERROR_LLR].to_numpy(dtype=np.float64))
    # An item is at most as likely an error as those before it.
    decreasing = IsotonicRegression(increasing=False).fit_transform(np.arange(n), unordered)
    prior = np.clip(decreasing, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    is_error = pd.Series(is_wrong or {}, dtype=np.float64).reindex(range(n)).to_numpy()
    stretch, scale, weight = _posterior(logit(prior), is_error)
    rng = np.random.default_rng(seed)
    points = rng.choice(len(weight), DRAWS, p=weight)
    p = np.stack([_curve(logit(prior), np.arange(n), stretch[point], scale[point]) for point in points])
    right_labels = int((is_error == 0).sum())
    rate = UNSEEN_SHAPE / (UNSEEN_ERROR_RATE * prior.mean()) + right_labels
    unseen = rng.gamma(UNSEEN_SHAPE, 1 / rate, DRAWS)[:, None]
    p = np.where(np.isnan(is_error), p + (1 - p) * np.minimum(unseen, 1), np.nan_to_num(is_error))
    found = np.zeros((DRAWS, n + 1))
    found[:, 1:] = np.cumsum(rng.random(p.shape) < p, 1)
    remaining = found[:, -1:] - found
    ends = [50 - INTERVAL_PERCENT / 2, 50 + INTERVAL_PERCENT / 2]
    found_low, found_high = np.percentile(found, ends, axis=0)
    remaining_low, remaining_high = np.percentile(remaining, ends, axis=0)
    expected = np.r_[0.0, np.cumsum(p.mean(0))]
    return Forecast(expected, found_low, found_high, expected[-1] - expected, remaining_low, remaining_high, p.mean(0))


def error_rate(error_llr: np.ndarray) -> float:
    """Return the share of label errors under which the log-likelihood ratios are most likely.

    Saerens et al. (2002), "Adjusting the outputs of a classifier to new a priori probabilities".
    """
    rate = _FIRST_ERROR_RATE
    for _ in range(_EM_STEPS):
        mean = float(expit(error_llr + logit(rate)).mean())
        previous, rate = rate, float(np.clip(mean, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR))
        if abs(rate - previous) < _EM_TOLERANCE:
            break
    return rate


def probabilities(error_llr: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` probabilities that the labels are wrong, by Bayes' rule with :func:`error_rate` as the prior."""
    return np.asarray(expit(error_llr + logit(error_rate(error_llr))), dtype=np.float64)


def _curve(logits: np.ndarray, positions: np.ndarray, stretch: float, scale: float) -> np.ndarray:
    """Return the probabilities at ``positions`` of the stretched curve with scaled logits."""
    depth = np.arange(1, len(logits) + 1)
    return expit(scale * np.interp((positions + 1) / stretch, depth, logits))


def _posterior(logits: np.ndarray, is_error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a grid of stretches and scales with their posterior probabilities: ``(grid,)`` three times.

    ``is_error`` is 1 where the label was found wrong, 0 where right, and NaN where undecided.
    """
    axes = (np.linspace(-_GRID_SDS, _GRID_SDS, points) for points in (_STRETCHES, _SCALES))
    z_stretch, z_scale = (part.ravel() for part in np.meshgrid(*axes))
    stretch, scale = np.exp(STRETCH_SD * z_stretch), np.exp(LOGIT_SCALE_SD * z_scale)
    log_weight = -(z_stretch**2 + z_scale**2) / 2
    decided = np.flatnonzero(~np.isnan(is_error))
    if len(decided):
        wrong = is_error[decided]
        for point in range(len(log_weight)):
            p = _curve(logits, decided, stretch[point], scale[point])
            p = OUTLIER_RATE + (1 - 2 * OUTLIER_RATE) * p
            log_weight[point] += DECISION_WEIGHT * float(np.log(np.where(wrong > 0, p, 1 - p)).sum())
    weight = np.exp(log_weight - log_weight.max())
    return stretch, scale, weight / weight.sum()
