"""Choose the score that finds injected label noise best, and estimate from it which given items are wrong.

The candidates are the single scores and their **combination**, a logistic regression with weights of 0 or more on
scores of one scale. Its weights are fitted to all protocols but one and measured on that one, so that its figures are
not optimistically biased.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from core.recommendation.copies import first_share
from core.recommendation.scores import SCORES, STAGES
from core.review.calibration import COMBINATION, fit_weights, robust_scale

TIE = 0.01
"""Average precisions that differ by less count as equal: the sampling error of a copy is larger."""


@dataclass(frozen=True, eq=False)
class ScoredCopy:
    """The scores of the items of one level on a copy.

    Attributes:
        scores: ``(n, scores)``, larger is more suspicious.
        is_wrong: ``(n,)`` of bool, the injected errors.
        seconds: By stage of :data:`core.recommendation.scores.STAGES`.
    """

    protocol: str
    scores: pd.DataFrame
    is_wrong: np.ndarray
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen candidate of one level.

    Attributes:
        candidate: A score or ``combination``.
        weights: Of the scores in the combination, fitted to all copies; without those of weight 0.
        table: level, protocol, candidate, items, injected (errors), auc, average_precision, first (share of the items
            checked), found (share of the injected errors among them), seconds (of the stages that the candidate takes,
            which may be shared with others), chosen.
    """

    candidate: str
    weights: dict[str, float]
    table: pd.DataFrame

    @property
    def auc(self) -> float:
        """Return the mean area under the ROC curve of the chosen candidate."""
        return float(self.table.loc[self.table["chosen"], "auc"].mean())

    def uses(self, score: str) -> bool:
        """Return whether the chosen candidate needs a score."""
        return score in (self.weights if self.candidate == COMBINATION else (self.candidate,))


def choose(level: str, copies: Sequence[ScoredCopy]) -> Choice:
    """Measure every candidate on every copy; choose the highest average precision, averaged over the copies.

    Of candidates within :data:`TIE` of it, the first in the order of :data:`core.recommendation.scores.SCORES` is
    chosen, and the combination last.
    """
    names = [name for name in SCORES if name in copies[0].scores]
    scaled = [robust_scale(copy.scores[names]).to_numpy() for copy in copies]
    truth = [copy.is_wrong.astype(np.float64) for copy in copies]
    rows = []
    for number, copy in enumerate(copies):
        others = [position for position in range(len(copies)) if position != number] or [number]
        fitted = _weights(*([part[position] for position in others] for part in (scaled, truth)))
        candidates = dict(zip(names, scaled[number].T, strict=True)) | {COMBINATION: scaled[number] @ fitted}
        first = first_share(copy.protocol, level, float(copy.is_wrong.mean()))
        of_stage = {STAGES[level][name] for name in names}
        for name, score in candidates.items():
            checked = np.argsort(-score, kind="stable")[: round(first * len(score))]
            stages = of_stage if name == COMBINATION else {STAGES[level][name]}
            rows.append(
                {
                    "level": level,
                    "protocol": copy.protocol,
                    "candidate": name,
                    "items": len(score),
                    "injected": int(copy.is_wrong.sum()),
                    "auc": float(roc_auc_score(copy.is_wrong, score)),
                    "average_precision": float(average_precision_score(copy.is_wrong, score)),
                    "first": first,
                    "found": float(copy.is_wrong[checked].sum() / copy.is_wrong.sum()),
                    "seconds": round(sum(copy.seconds[stage] for stage in stages), 2),
                }
            )
    table = pd.DataFrame(rows)
    mean = table.groupby("candidate", sort=False)["average_precision"].mean()
    candidate = str(mean.index[(mean >= mean.max() - TIE).to_numpy()][0])
    weights = {name: float(one) for name, one in zip(names, _weights(scaled, truth), strict=True) if one > 0}
    return Choice(candidate, weights, table.assign(chosen=table["candidate"] == candidate))


def _weights(scaled: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> np.ndarray:
    """Return the weights of the combination; every copy counts equally."""
    sizes = np.array([len(part) for part in truth])
    sample_weight = np.repeat(sizes.mean() / sizes, sizes)
    return fit_weights(np.concatenate(scaled), np.concatenate(truth), sample_weight)
