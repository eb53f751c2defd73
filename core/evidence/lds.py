"""The linear datamodelling score: does a method foretell what retraining on other tasks does to the held-out loss?

For every target: Spearman's correlation, over subsets of the training tasks, of the loss that retraining on the
subset gives and the loss that adding up the scores foretells (Park et al. 2023, Def. 3). Intervals are 95 % bootstrap
intervals over subsets, which are the sample; targets are averaged over within each.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

_RESAMPLES, _MOST_SPLITS = 1000, 20


@dataclass(frozen=True)
class Score:
    """A mean over targets with its interval."""

    mean: float
    low: float
    high: float


def predicted_losses(scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Losses ``(M, T)`` foretold for subsets, up to a constant a target.

    Args:
        scores: ``(N, T)``, what removing each task would add to each target's loss.
        kept: ``(M, N)`` of bool.
    """
    return (~kept).astype(np.float64) @ scores


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation over the second-last axis, ``(..., M, T) -> (..., T)``; 0 where one side is constant."""
    ranks = [rankdata(side, axis=-2) for side in (a, b)]
    left, right = (side - side.mean(-2, keepdims=True) for side in ranks)
    scale = np.sqrt((left**2).sum(-2) * (right**2).sum(-2))
    return np.divide((left * right).sum(-2), scale, out=np.zeros_like(scale), where=scale > 0)


def lds(predicted: np.ndarray, measured: np.ndarray, seed: int = 0) -> Score:
    """Mean over targets of the correlation of ``(M, T)`` with ``(M, T)``."""
    drawn = np.random.default_rng(seed).integers(0, len(predicted), (_RESAMPLES, len(predicted)))
    means = correlations(predicted[drawn], measured[drawn]).mean(-1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Score(float(correlations(predicted, measured).mean()), float(low), float(high))


def ceiling(measured: np.ndarray) -> Score | None:
    """How well independent retrainings of the same subsets agree: what a method can be expected to reach that foretells
    as well as retraining does.

    Methods are held against the mean of all seeds, which is less noisy than that of half of them: where the halves
    agree to r, a method that knew the truth would reach sqrt(2 r / (1 + r)) (Spearman-Brown).

    Args:
        measured: ``(M, R, T)`` for R seeds; they are split into two halves in every way (at most 20), and the
            means of the halves correlated.

    Returns:
        None where there is one seed only.
    """
    count = measured.shape[1]
    if count < 2:
        return None
    halves = [half for half in combinations(range(count), count // 2) if 0 in half or count % 2]
    rng = np.random.default_rng(0)
    chosen = [halves[i] for i in rng.permutation(len(halves))[:_MOST_SPLITS]]
    scores = []
    for half in chosen:
        other = [r for r in range(count) if r not in half][: len(half)]
        scores.append(lds(measured[:, list(half)].mean(1), measured[:, other].mean(1)))
    return Score(*(float(np.mean([getattr(s, part) for s in scores])) for part in ("mean", "low", "high")))


def difference(one: np.ndarray, other: np.ndarray, measured: np.ndarray, seed: int = 0) -> Score:
    """LDS of one method less that of another, with the paired bootstrap interval over subsets."""
    drawn = np.random.default_rng(seed).integers(0, len(one), (_RESAMPLES, len(one)))
    means = correlations(one[drawn], measured[drawn]).mean(-1) - correlations(other[drawn], measured[drawn]).mean(-1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Score(
        float(correlations(one, measured).mean() - correlations(other, measured).mean()), float(low), float(high)
    )
