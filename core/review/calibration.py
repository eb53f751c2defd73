"""Which score finds wrong labels best on this data? Measured on planted ones, and the ranking chosen by it.

Beside the single scores stands their **combination**: a logistic regression with weights of 0 or more that tells wrong
items from right ones. It is rated on images that it was not fitted to.

Among the items that were left alone are the data's own wrong labels, which nobody knows, and a score that puts them on
top must not be blamed for it. So the items that either of the two classifiers doubts are set aside: what is planted is
held against the rest.

How many labels are wrong, and which how likely, is reckoned from the better one of the two classifiers, as its
log-probabilities say what they mean (:mod:`core.review.forecast`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize, nnls
from scipy.special import expit
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold

from core.review.forecast import probabilities

COMBINATION, FIRST = "combination", ("discriminant", "kernel")
_FOLDS, _BOOTSTRAPS, _PENALTY, _POINTS = 5, 50, 1.0, 200
_CERTAIN = 1e-6  # no label is surer
_EVEN, _TOP = 0.1, 0.7  # a kind counts so much, beside what the data seem to hold of it; share of these looked at


@dataclass(frozen=True, eq=False)
class ScoredCopy:
    """Scores of the items of a spoilt copy.

    Attributes:
        kind: What was planted.
        scores: ``(n, members)``.
        wrong: ``(n,)`` of bool: planted.
        group: ``(n,)``: the image of every item.
        seconds: That the scores took.
    """

    kind: str
    scores: pd.DataFrame
    wrong: np.ndarray
    group: np.ndarray
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the planted labels say.

    Attributes:
        ranking: The score chosen, a member or ``combination``.
        weights: Of the members in the combination.
        candidates: candidate, planted, average_precision, low, high (95 %), recall (of the planted, when as many items
            are checked as there are), seconds, chosen.
        curves: candidate, planted, checked, found: share of the planted found against the share checked.
        classifier: Which of the two finds the planted ones better.
        planted: By kind: how many labels.
    """

    ranking: str
    weights: dict[str, float]
    candidates: pd.DataFrame
    curves: pd.DataFrame
    classifier: str
    planted: dict[str, int]


def robust_scale(scores: pd.DataFrame) -> pd.DataFrame:
    """Members on one scale: how many usual spreads above the usual item, large ones compressed."""
    middle, quarters = scores.median(), scores.quantile([0.25, 0.75])
    spread = (quarters.loc[0.75] - quarters.loc[0.25]).replace(0.0, np.nan)
    away = (scores - middle) / spread.fillna(scores.std(ddof=0)).replace(0.0, 1.0)
    return np.sign(away) * np.log1p(away.abs())


def suspicion(scores: pd.DataFrame, ranking: str, weights: dict[str, float]) -> np.ndarray:
    """``(n,)``: the chosen ranking's score of every item."""
    scaled = robust_scale(scores)
    if ranking != COMBINATION:
        return scaled[ranking].to_numpy()
    return scaled[list(weights)].to_numpy() @ np.array(list(weights.values()))


def places(score: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """``(planted,)``: share of the other items that are more suspicious than each planted one."""
    others = np.sort(score[~wrong])
    return 1 - np.searchsorted(others, score[wrong], side="right") / len(others)


def calibrate(copies: list[ScoredCopy], classes: int, seed: int = 0) -> Calibration:
    """Rate every member and the combination on the copies, and choose.

    Args:
        classes: How many there are.
    """
    members = list(copies[0].scores.columns)
    scaled = [robust_scale(copy.scores) for copy in copies]
    likely = _likely([table[list(FIRST)].mean(axis=1).to_numpy() for table in scaled], copies)
    kept = [copy.wrong | ~_doubted(copy.scores, classes) for copy in copies]
    x = np.concatenate([table.to_numpy()[rest] for table, rest in zip(scaled, kept, strict=True)])
    wrong = [copy.wrong[rest] for copy, rest in zip(copies, kept, strict=True)]
    group = np.concatenate([copy.group[rest] for copy, rest in zip(copies, kept, strict=True)])
    truth = np.concatenate(wrong).astype(np.float64)
    heavy = np.repeat(likely, [len(one) for one in wrong])
    weights = dict(zip(members, map(float, _weights(x, truth, heavy)), strict=True))
    scores = np.c_[x, _out_of_fold(x, truth, heavy, group)]
    rows, curves, rng = [], [], np.random.default_rng(seed)
    for copy, one, here in zip(
        copies, wrong, np.split(scores, np.cumsum([len(one) for one in wrong])[:-1]), strict=True
    ):
        at = np.unique(np.linspace(0, len(one), _POINTS + 1).astype(int))
        for name, score in zip([*members, COMBINATION], here.T, strict=True):
            low, high = _interval(one, score, rng)
            found = np.r_[0, np.cumsum(one[np.argsort(-score, kind="stable")])] / one.sum()
            rows.append(
                {
                    "candidate": name,
                    "planted": copy.kind,
                    "average_precision": float(average_precision_score(one, score)),
                    "low": low,
                    "high": high,
                    "recall": float(found[one.sum()]),
                    "seconds": copy.seconds,
                }
            )
            curves.append(
                pd.DataFrame({"candidate": name, "planted": copy.kind, "checked": at / len(one), "found": found[at]})
            )
    candidates = pd.DataFrame(rows)
    weight = candidates["planted"].map(dict(zip((copy.kind for copy in copies), likely, strict=True)))
    mean = (weight * candidates["average_precision"]).groupby(candidates["candidate"], sort=False).sum()
    ranking, classifier = str(mean.idxmax()), str(mean[list(FIRST)].idxmax())
    candidates["chosen"] = candidates["candidate"] == ranking
    planted = {copy.kind: int(copy.wrong.sum()) for copy in copies}
    return Calibration(ranking, weights, candidates, pd.concat(curves, ignore_index=True), classifier, planted)


def uncalibrated(scores: pd.DataFrame) -> np.ndarray:
    """``(n,)``: the suspicion where nothing was planted: by the classifiers together."""
    return robust_scale(scores)[list(FIRST)].mean(axis=1).to_numpy()


def error_llr(classifier: pd.Series, classes: int) -> np.ndarray:
    """``(n,)``: log-likelihood ratio of a wrong label, which is any class but the right one, against a right one.

    Args:
        classifier: Minus the log-probability of the given class.
    """
    log_p = np.minimum(-classifier.to_numpy(), -_CERTAIN)
    return np.log(-np.expm1(log_p)) - np.log(max(classes - 1, 1)) - log_p


def _doubted(scores: pd.DataFrame, classes: int) -> np.ndarray:
    """``(n,)`` of bool: more likely wrong than right by one of the two classifiers."""
    evidence = [error_llr(scores[name], classes) for name in FIRST]
    return np.any([probabilities(one) > 0.5 for one in evidence], 0)


def _likely(scores: list[np.ndarray], copies: list[ScoredCopy]) -> np.ndarray:
    """``(copies,)``, of mean 1: how much each kind of error counts, by how much of it the data seem to hold.

    At the top of a queue hardly a label is right, so that the number of items down to a depth is that of wrong labels:
    a sum over the kinds of how many there are of it, times the share of its planted labels that stands so high.
    Non-negative least squares give how many (mixture proportion estimation; compare Garg et al. 2021, "Mixture
    Proportion Estimation and PU Learning").
    """
    n = int((~copies[0].wrong).sum())
    above = np.stack([_shares_above(n, places(score, copy.wrong)) for score, copy in zip(scores, copies, strict=True)])
    # From the top to where half of all planted labels stand, and not beyond most of what is found.
    reach, found = float(np.searchsorted(above.mean(0), 0.5)), np.zeros(len(above))
    for _ in range(3):
        depth = np.unique(np.linspace(1, max(reach, 1), 64).round().astype(int))
        weight = 1 / np.sqrt(depth)  # as of counts
        found, _ = nnls(above[:, depth - 1].T * weight[:, None] * n, depth * weight)
        found *= min(1.0, 1 / max(found.sum(), 1e-12))
        reach = min(reach, _TOP * found.sum() * n)
    likely = found + _EVEN * max(found.sum(), 1e-3)
    return likely / likely.mean()


def _shares_above(n: int, where: np.ndarray) -> np.ndarray:
    """``(n,)``: share of the planted items that stand no lower than each of n items, most suspicious first."""
    ordered = np.sort(where)
    return np.searchsorted(ordered, np.arange(1, n + 1) / n, side="right") / len(ordered)


def _out_of_fold(x: np.ndarray, truth: np.ndarray, heavy: np.ndarray, group: np.ndarray) -> np.ndarray:
    score = np.zeros(len(truth))
    for fit, judge in GroupKFold(_FOLDS).split(x, truth, group):
        score[judge] = x[judge] @ _weights(x[fit], truth[fit], heavy[fit])
    return score


def _weights(x: np.ndarray, truth: np.ndarray, heavy: np.ndarray) -> np.ndarray:
    """Logistic regression with an intercept, a ridge penalty, and weights of 0 or more; returns the weights."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w[:-1] + w[-1]
        value = heavy @ (np.logaddexp(0, z) - truth * z) + _PENALTY / 2 * (w[:-1] ** 2).sum()
        error = heavy * (expit(z) - truth)
        return float(value), np.r_[x.T @ error + _PENALTY * w[:-1], error.sum()]

    start = np.r_[np.full(x.shape[1], 0.1), -2.0]
    bounds = [(0.0, None)] * x.shape[1] + [(None, None)]
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1]


def _interval(wrong: np.ndarray, score: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """By bootstraps over items: 95 %."""
    truth = wrong[np.argsort(-score, kind="stable")]
    times = rng.poisson(1.0, (_BOOTSTRAPS, len(truth)))
    found, checked = np.cumsum(times * truth, 1), np.maximum(np.cumsum(times, 1), 1)
    precision = (times * truth * found / checked).sum(1) / np.maximum(found[:, -1], 1e-12)
    low, high = np.quantile(precision, [0.025, 0.975])
    return float(low), float(high)
