"""Measure on injected label errors which score finds them best on these data, and choose the ranking by it.

The candidates are the single scores and their **combination**: a logistic regression with non-negative weights that
separates label errors from correct labels. It is evaluated on images that it was not fitted to.

The unchanged items include unknown label errors of the data itself; a score that ranks them first must not be
penalised. So items that either of the two classifiers doubts are excluded, and injected errors are compared with the
rest.
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

COMBINATION, CLASSIFIERS = "combination", ("discriminant", "kernel")
_FOLDS, _BOOTSTRAPS, _CURVE_POINTS = 5, 50, 200
_RIDGE = 1.0
"""Penalty of the squared weights of the combination: that of scikit-learn's default, C = 1."""
_MIN_LOG_P = 1e-6
"""No label is more certain than a log-probability of minus this, so that ratios stay finite."""
_BASE_WEIGHT = 0.1
"""Weight of a kind of error that the data seem not to contain, in units of the total: no kind is ignored."""
_FITTED_SHARE = 0.7
"""The share of the estimated errors within which the top of the queue is fitted, where nearly all labels are wrong."""


@dataclass(frozen=True, eq=False)
class ScoredCopy:
    """The scores ``(n, members)`` of a copy with injected label errors of one kind.

    ``is_wrong`` ``(n,)`` marks the errors, ``group`` ``(n,)`` holds the image of every item.
    """

    kind: str
    scores: pd.DataFrame
    is_wrong: np.ndarray
    group: np.ndarray
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Calibration:
    """The results on injected errors, and the choices made from them.

    Attributes:
        ranking: The chosen score, a member or ``combination``.
        weights: Of the members in the combination.
        candidates: candidate, planted (kind of error), average_precision, low, high (95 %), recall (when as many items
            are checked as there are injected errors), seconds, chosen.
        curves: candidate, planted, checked, found: share of the injected errors found against the share checked.
        classifier: The better of :data:`CLASSIFIERS`; from its calibrated log-probabilities come the probabilities of
            label errors and their number (:mod:`core.review.forecast`).
        planted: Number of injected errors by kind.
    """

    ranking: str
    weights: dict[str, float]
    candidates: pd.DataFrame
    curves: pd.DataFrame
    classifier: str
    planted: dict[str, int]


def robust_scale(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores on one scale: ``sign(z) log(1 + |z|)`` of the distance z from the median in quartile ranges."""
    middle, quarters = scores.median(), scores.quantile([0.25, 0.75])
    spread = (quarters.loc[0.75] - quarters.loc[0.25]).replace(0.0, np.nan)
    z = (scores - middle) / spread.fillna(scores.std(ddof=0)).replace(0.0, 1.0)
    return pd.DataFrame(np.sign(z) * np.log1p(z.abs()))


def suspicion(scores: pd.DataFrame, ranking: str, weights: dict[str, float]) -> np.ndarray:
    """Return ``(n,)`` scores of every item by the chosen ranking."""
    scaled = robust_scale(scores)
    if ranking != COMBINATION:
        return scaled[ranking].to_numpy()
    return scaled[list(weights)].to_numpy() @ np.array(list(weights.values()))


def share_above(score: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return ``(injected,)``: the share of the other items that are more suspicious than each injected error."""
    others = np.sort(score[~wrong])
    return 1 - np.searchsorted(others, score[wrong], side="right") / len(others)


def calibrate(copies: list[ScoredCopy], classes: int, seed: int = 0) -> Calibration:
    """Evaluate every member and the combination on the copies, and choose; ``seed`` is that of the intervals."""
    members = list(copies[0].scores.columns)
    scaled = [robust_scale(copy.scores) for copy in copies]
    kind_weights = _kind_weights([table[list(CLASSIFIERS)].mean(axis=1).to_numpy() for table in scaled], copies)
    usable = [copy.is_wrong | ~_is_doubted(copy.scores, classes) for copy in copies]
    x = np.concatenate([table.to_numpy()[mask] for table, mask in zip(scaled, usable, strict=True)])
    wrong = [copy.is_wrong[mask] for copy, mask in zip(copies, usable, strict=True)]
    group = np.concatenate([copy.group[mask] for copy, mask in zip(copies, usable, strict=True)])
    truth = np.concatenate(wrong).astype(np.float64)
    sizes = [len(is_wrong) for is_wrong in wrong]
    sample_weight = np.repeat(kind_weights, sizes)
    weights = dict(zip(members, map(float, fit_weights(x, truth, sample_weight)), strict=True))
    out_of_fold = np.zeros(len(truth))
    for training, test in GroupKFold(_FOLDS).split(x, truth, group):
        out_of_fold[test] = x[test] @ fit_weights(x[training], truth[training], sample_weight[training])
    scores = np.c_[x, out_of_fold]
    rows, curves, rng = [], [], np.random.default_rng(seed)
    for copy, is_wrong, copy_scores in zip(copies, wrong, np.split(scores, np.cumsum(sizes)[:-1]), strict=True):
        depths = np.unique(np.linspace(0, len(is_wrong), _CURVE_POINTS + 1).astype(int))
        for name, score in zip([*members, COMBINATION], copy_scores.T, strict=True):
            low, high = _precision_interval(is_wrong, score, rng)
            found = np.r_[0, np.cumsum(is_wrong[np.argsort(-score, kind="stable")])] / is_wrong.sum()
            rows.append(
                {
                    "candidate": name,
                    "planted": copy.kind,
                    "average_precision": float(average_precision_score(is_wrong, score)),
                    "low": low,
                    "high": high,
                    "recall": float(found[is_wrong.sum()]),
                    "seconds": copy.seconds,
                }
            )
            curve = {"checked": depths / len(is_wrong), "found": found[depths]}
            curves.append(pd.DataFrame({"candidate": name, "planted": copy.kind, **curve}))
    candidates = pd.DataFrame(rows)
    weight = candidates["planted"].map(dict(zip((copy.kind for copy in copies), kind_weights, strict=True)))
    mean = (weight * candidates["average_precision"]).groupby(candidates["candidate"], sort=False).sum()
    ranking, classifier = str(mean.idxmax()), str(mean[list(CLASSIFIERS)].idxmax())
    candidates["chosen"] = candidates["candidate"] == ranking
    planted = {copy.kind: int(copy.is_wrong.sum()) for copy in copies}
    return Calibration(ranking, weights, candidates, pd.concat(curves, ignore_index=True), classifier, planted)


def default_suspicion(scores: pd.DataFrame) -> np.ndarray:
    """Return ``(n,)`` suspicions without calibration: the mean of the classifiers."""
    return robust_scale(scores)[list(CLASSIFIERS)].mean(axis=1).to_numpy()


def error_llr(classifier: pd.Series, classes: int) -> np.ndarray:
    """Return ``(n,)`` log-likelihood ratios of a wrong label, any class but the right one, against a right one.

    ``classifier`` is minus the log-probability of the given class.
    """
    log_p = np.minimum(-classifier.to_numpy(), -_MIN_LOG_P)
    return np.log(-np.expm1(log_p)) - np.log(max(classes - 1, 1)) - log_p


def _is_doubted(scores: pd.DataFrame, classes: int) -> np.ndarray:
    """Return ``(n,)`` of bool: more likely wrong than right by one of the two classifiers."""
    ratios = [error_llr(scores[name], classes) for name in CLASSIFIERS]
    return np.any([probabilities(ratio) > 0.5 for ratio in ratios], 0)


def _kind_weights(scores: list[np.ndarray], copies: list[ScoredCopy]) -> np.ndarray:
    """Return ``(copies,)`` weights of mean 1 of the kinds of error, by how common each kind seems to be in the data.

    At the top of a queue hardly any label is right, so the number of items down to a depth is the number of errors: the
    sum over the kinds of their number times the share of their injected errors above that depth. Non-negative least
    squares give the numbers (mixture proportion estimation; compare Garg et al. 2021, "Mixture Proportion Estimation
    and PU Learning").
    """
    n = int((~copies[0].is_wrong).sum())
    depths = np.arange(1, n + 1) / n
    fractions = [np.sort(share_above(score, copy.is_wrong)) for score, copy in zip(scores, copies, strict=True)]
    above = np.stack([np.searchsorted(ordered, depths, side="right") / len(ordered) for ordered in fractions])
    # From the top to the depth of half of all injected errors, and not beyond most of the estimated errors.
    reach, counts = float(np.searchsorted(above.mean(0), 0.5)), np.zeros(len(above))
    for _ in range(3):
        depth = np.unique(np.linspace(1, max(reach, 1), 64).round().astype(int))
        weight = 1 / np.sqrt(depth)  # of Poisson counts
        counts, _ = nnls(above[:, depth - 1].T * weight[:, None] * n, depth * weight)
        counts *= min(1.0, 1 / max(counts.sum(), 1e-12))
        reach = min(reach, _FITTED_SHARE * counts.sum() * n)
    weights = counts + _BASE_WEIGHT * max(counts.sum(), 1e-3)
    return weights / weights.mean()


def fit_weights(x: np.ndarray, truth: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
    """Return the weights of a logistic regression with an intercept, a ridge penalty and weights of 0 or more."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w[:-1] + w[-1]
        value = sample_weight @ (np.logaddexp(0, z) - truth * z) + _RIDGE / 2 * (w[:-1] ** 2).sum()
        error = sample_weight * (expit(z) - truth)
        return float(value), np.r_[x.T @ error + _RIDGE * w[:-1], error.sum()]

    start = np.r_[np.full(x.shape[1], 0.1), -2.0]
    bounds = [(0.0, None)] * x.shape[1] + [(None, None)]
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1]


def _precision_interval(wrong: np.ndarray, score: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % interval of the average precision by a Poisson bootstrap over items."""
    truth = wrong[np.argsort(-score, kind="stable")]
    times = rng.poisson(1.0, (_BOOTSTRAPS, len(truth)))
    found, checked = np.cumsum(times * truth, 1), np.maximum(np.cumsum(times, 1), 1)
    precision = (times * truth * found / checked).sum(1) / np.maximum(found[:, -1], 1e-12)
    low, high = np.quantile(precision, [0.025, 0.975])
    return float(low), float(high)
