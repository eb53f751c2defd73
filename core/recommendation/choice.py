"""Choose the score that finds injected label noise best.

The candidates are the single scores and their **combination**, a logistic regression with weights of 0 or more on
scores of one scale. Its weights are fitted to all protocols but one and measured on that one, so that its figures are
not optimistically biased.

The copies hold label errors of the data itself, which must not count against a score that finds them: the model was
trained on them, so that scores which it has learned to fit rank only the injected errors first. Items that were not
injected but are doubted by a score of :data:`core.recommendation.probability.EVIDENCE` are therefore left out. This
favours these scores, as their own false alarms are left out too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from core.recommendation.copies import first_share
from core.recommendation.probability import EVIDENCE, ErrorOdds, fit_error_odds
from core.recommendation.scores import SCORES, STAGES
from core.review.calibration import COMBINATION, fit_weights, robust_scale

COLUMNS = (
    "level",
    "protocol",
    "candidate",
    "items",
    "injected",
    "auc",
    "average_precision",
    "first",
    "found",
    "seconds",
    "chosen",
)
"""Columns of :attr:`Choice.table`."""
TIE = 0.03
"""Average precisions that differ by less count as equal: that of 50 to 100 injected errors has this standard error."""
DOUBT = 2.0
"""Likelihood ratio of being wrong above which items that were not injected are left out."""


@dataclass(frozen=True, eq=False)
class CopyScores:
    """The scores of the items of one level on a copy.

    Attributes:
        scores: ``(n, scores)``, larger is more suspicious.
        is_wrong: ``(n,)`` of bool, the injected errors.
        seconds: By stage of :data:`core.recommendation.scores.STAGES`.
    """

    protocol: str
    scores: pd.DataFrame
    is_wrong: np.ndarray
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen candidate of one level.

    Attributes:
        candidate: A score or ``combination``.
        weights: Of the scores in the combination, fitted to all copies; without those of weight 0.
        evidence, odds: The better score of :data:`core.recommendation.probability.EVIDENCE`, and its odds.
        table: level, protocol, candidate, items (compared), injected (errors among them), auc, average_precision, first
            (share of the items checked), found (share of the injected errors among them), seconds (of the stages that
            the candidate takes, some of which it shares with others), chosen.
    """

    candidate: str
    weights: dict[str, float]
    evidence: str
    odds: ErrorOdds
    table: pd.DataFrame

    @property
    def auc(self) -> float:
        """Return the mean area under the ROC curve of the chosen candidate."""
        return float(self.table.loc[self.table["chosen"], "auc"].mean())

    def uses(self, score: str) -> bool:
        """Return whether the chosen candidate needs a score."""
        return score in (self.weights if self.candidate == COMBINATION else (self.candidate,))


def choose(level: str, copies: Sequence[CopyScores]) -> Choice:
    """Measure every candidate on every copy; choose the highest average precision, averaged over the copies.

    Of candidates within :data:`TIE` of it, the first in the order of :data:`core.recommendation.scores.SCORES` is
    chosen, and the combination last.
    """
    odds = {
        name: fit_error_odds([copy.scores[name].to_numpy() for copy in copies], [copy.is_wrong for copy in copies])
        for name in EVIDENCE
    }
    names = [name for name in SCORES if name in copies[0].scores]
    compared = [_is_compared(copy, odds) for copy in copies]
    scaled = [robust_scale(copy.scores[names]).to_numpy()[mask] for copy, mask in zip(copies, compared, strict=True)]
    truth = [copy.is_wrong[mask] for copy, mask in zip(copies, compared, strict=True)]
    rows = []
    for number, copy in enumerate(copies):
        others = [position for position in range(len(copies)) if position != number] or [number]
        fitted = _weights(*([part[position] for position in others] for part in (scaled, truth)))
        columns = dict(zip(names, scaled[number].T, strict=True)) | {COMBINATION: scaled[number] @ fitted}
        rows += [_measured(level, copy, name, score, truth[number]) for name, score in columns.items()]
    table = pd.DataFrame(rows)
    mean = table.groupby("candidate", sort=False)["average_precision"].mean()
    candidate, evidence = _best(mean), _best(mean[list(EVIDENCE)])
    weights = {name: float(one) for name, one in zip(names, _weights(scaled, truth), strict=True) if one > 0}
    table = table.assign(chosen=table["candidate"] == candidate)
    return Choice(candidate, weights, evidence, odds[evidence], table[list(COLUMNS)])


def _is_compared(copy: CopyScores, odds: Mapping[str, ErrorOdds]) -> np.ndarray:
    """Return ``(n,)`` of bool: the injected errors, and the items that no evidence doubts."""
    doubts = [one.log_ratio(copy.scores[name].to_numpy()) > np.log(DOUBT) for name, one in odds.items()]
    return copy.is_wrong | ~np.any(doubts, 0)


def _measured(level: str, copy: CopyScores, name: str, score: np.ndarray, is_wrong: np.ndarray) -> dict[str, object]:
    """Return the row of a candidate; ``score`` and ``is_wrong`` ``(n,)`` are those of the compared items."""
    first = first_share(copy.protocol, level)
    checked = np.argsort(-score, kind="stable")[: max(round(first * len(score)), int(is_wrong.sum()))]
    stages = set(STAGES[level].values()) if name == COMBINATION else {STAGES[level][name]}
    return {
        "level": level,
        "protocol": copy.protocol,
        "candidate": name,
        "items": len(score),
        "injected": int(is_wrong.sum()),
        "auc": float(roc_auc_score(is_wrong, score)),
        "average_precision": float(average_precision_score(is_wrong, score)),
        "first": first,
        "found": float(is_wrong[checked].sum() / is_wrong.sum()),
        "seconds": round(sum(copy.seconds[stage] for stage in stages), 2),
    }


def _best(mean: pd.Series) -> str:
    """Return the first candidate whose mean average precision is within :data:`TIE` of the highest."""
    return str(mean.index[(mean >= mean.max() - TIE).to_numpy()][0])


def _weights(scaled: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> np.ndarray:
    """Return the weights of the combination; every copy counts equally."""
    sizes = np.array([len(part) for part in truth])
    sample_weight = np.repeat(sizes.mean() / sizes, sizes)
    return fit_weights(np.concatenate(scaled), np.concatenate(truth).astype(np.float64), sample_weight)
