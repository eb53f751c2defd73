"""Estimate which items are wrong, and how many, from the scores of copies with injected errors.

**Odds.** On the copies, the probability that an item was injected is fitted as ``c sigmoid(a x + b)`` in a score x. The
ceiling c is below 1 if the copies hold errors of the data itself, such as mislabelled images: then even among the most
suspicious items only the share c was injected, and ``sigmoid(a x + b)`` is the probability of being wrong at all. This
is learning from positive and unlabelled items (Elkan and Noto 2008).

**Unusual items.** A few right items look wrong to every score. Injected errors cannot tell how many, so a share
:data:`UNUSUAL` of the right items is assumed to have the scores of wrong ones, which bounds the odds.

**Prior.** The share of wrong items in the data is the one of highest likelihood under these odds (Saerens et al. 2002;
:func:`core.review.forecast.error_rate`).

**Order.** Odds come from a score of :data:`EVIDENCE`, whatever score is recommended. These do not use the item's own
tasks, on which the model was trained: the losses of the given tasks are lower than those of the copies, so that odds
would not carry over. Along the recommended order the probabilities are then made to decrease (isotonic regression).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from core.review.forecast import probabilities

EVIDENCE = ("classifier", "scoring_loss")
"""The scores that probabilities may come from."""
UNUSUAL = 0.005
"""Share of the right items that look wrong, a judgement: of clean digits, 0.5 % are misclassified with confidence."""
_MOST_WRONG = 0.5
"""Largest share of wrong items in the copies, the injected ones included."""
_RIDGE = 0.1
"""Penalty of the squared slope per standard deviation of the score: it stays finite if the errors are separated."""


@dataclass(frozen=True)
class ErrorOdds:
    """The log-odds ``slope * x + intercept`` that an item of the copies is wrong, the share ``prior`` of which is.

    ``ceiling`` is c.
    """

    slope: float
    intercept: float
    ceiling: float
    prior: float

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        """Return ``(n,)`` log-likelihood ratios of a wrong item against a right one, usual or not."""
        against = logit(self.prior) - self.slope * x - self.intercept
        return -np.logaddexp(np.log1p(-UNUSUAL) + against, np.log(UNUSUAL))


def fit_error_odds(scores: Sequence[np.ndarray], is_injected: Sequence[np.ndarray]) -> ErrorOdds:
    """Fit the odds to copies by maximum likelihood; every copy counts equally.

    Args:
        scores, is_injected: ``(n,)`` per copy.
    """
    x, y = np.concatenate(scores), np.concatenate(is_injected).astype(np.float64)
    sizes = np.array([len(part) for part in scores])
    weight = np.repeat(sizes.mean() / sizes, sizes)
    middle, spread = float(np.average(x, weights=weight)), float(x.std()) or 1.0
    z, injected = (x - middle) / spread, float(np.average(y, weights=weight))
    least_ceiling = min(1.0, injected / _MOST_WRONG)

    def loss(parameters: np.ndarray) -> float:
        slope, intercept, ceiling = parameters
        p = np.clip(ceiling * expit(slope * z + intercept), 1e-12, 1 - 1e-12)
        return float(-(weight * (y * np.log(p) + (1 - y) * np.log1p(-p))).sum() + _RIDGE / 2 * slope**2)

    bounds = [(0.0, None), (None, None), (least_ceiling, 1.0)]
    starts = ([1.0, -2.0, start] for start in (least_ceiling, (1 + least_ceiling) / 2, 1.0))
    fits = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    slope, intercept, ceiling = map(float, min(fits, key=lambda fit: fit.fun).x)
    return ErrorOdds(slope / spread, intercept - slope * middle / spread, ceiling, injected / ceiling)


def wrong_probabilities(odds: ErrorOdds, evidence: np.ndarray, suspicion: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` probabilities that items are wrong, which decrease along the order of ``suspicion`` ``(n,)``.

    ``evidence`` ``(n,)`` is the score that the odds are of.
    """
    p = probabilities(odds.log_ratio(evidence))
    order = np.argsort(-suspicion, kind="stable")
    decreasing = IsotonicRegression(increasing=False).fit_transform(np.arange(len(p)), p[order])
    result = np.empty(len(p))
    result[order] = decreasing
    return result
