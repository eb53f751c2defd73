"""The linear datamodelling score: how well does a method predict the held-out loss of models retrained on subsets?

For every target: Spearman's correlation, over subsets of the training tasks, of the loss measured after retraining on
the subset and the loss predicted by summing scores (Park et al. 2023, Def. 3). Intervals are 95 % bootstrap intervals
over subsets, which are the sample; within each resample, targets are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

_RESAMPLES, _MOST_SPLITS = 1000, 20
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Score:
    """A mean over targets with its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """Return ``0.85 [0.80, 0.90]``."""
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def predicted_losses(scores: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the losses ``(M, T)`` predicted for subsets, up to a constant per target.

    Args:
        scores: ``(N, T)``, what removing each task would add to each target's loss.
        masks: ``(M, N)`` of bool, the tasks in each subset.
    """
    return (~masks).astype(np.float64) @ scores


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation over the second-last axis, ``(..., M, T) -> (..., T)``; 0 if a side is constant."""
    from scipy.stats import rankdata  # takes a second to import, and pages without evidence do not need it

    ranks = [rankdata(side, axis=-2) for side in (a, b)]
    left, right = (side - side.mean(-2, keepdims=True) for side in ranks)
    scale = np.sqrt((left**2).sum(-2) * (right**2).sum(-2))
    return np.divide((left * right).sum(-2), scale, out=np.zeros_like(scale), where=scale > 0)


def lds(predicted: np.ndarray, measured: np.ndarray, seed: int = 0) -> Score:
    """Return the mean over targets of the correlation of ``(M, T)`` with ``(M, T)``, with its bootstrap interval."""
    return _bootstrap(lambda rows: correlations(predicted[rows], measured[rows]).mean(-1), len(predicted), seed)


def lds_difference(a: np.ndarray, b: np.ndarray, measured: np.ndarray, seed: int = 0) -> Score:
    """Return the LDS of method a minus that of method b, with the paired bootstrap interval over subsets."""

    def difference(rows: np.ndarray) -> np.ndarray:
        return correlations(a[rows], measured[rows]).mean(-1) - correlations(b[rows], measured[rows]).mean(-1)

    return _bootstrap(difference, len(a), seed)


def ceiling(measured: np.ndarray) -> Score | None:
    """Return the LDS that a method with perfect knowledge can be expected to reach, by agreement between retrainings.

    Methods are compared with the mean over all seeds, which is less noisy than that over half of them: where the
    halves agree to r, a perfect method would reach sqrt(2 r / (1 + r)) (Spearman-Brown).

    Args:
        measured: ``(M, R, T)`` for R seeds; they are split into two halves in every way (at most 20), and the
            means of the halves correlated.

    Returns:
        The agreement r of the halves; None if there is only one seed.
    """
    count = measured.shape[1]
    if count < 2:
        return None
    halves = [half for half in combinations(range(count), count // 2) if 0 in half or count % 2]
    order = np.random.default_rng(0).permutation(len(halves))[:_MOST_SPLITS]
    scores = []
    for half in (halves[number] for number in order):
        other_half = [seed for seed in range(count) if seed not in half][: len(half)]
        scores.append(lds(measured[:, list(half)].mean(1), measured[:, other_half].mean(1)))
    return Score(*(float(np.mean([getattr(score, part) for score in scores])) for part in ("mean", "low", "high")))


def _bootstrap(statistic: Callable[[np.ndarray], np.ndarray], subsets: int, seed: int) -> Score:
    resamples = np.random.default_rng(seed).integers(0, subsets, (_RESAMPLES, subsets))
    low, high = np.quantile(statistic(resamples), _QUANTILES)
    return Score(float(statistic(np.arange(subsets))), float(low), float(high))
