"""Which score finds wrong labels best on this data? Measured on planted ones, and the ranking chosen by it.

Beside the single scores stands their **combination**: a logistic regression with weights of 0 or more that tells wrong
items from right ones. It is rated on images that it was not fitted to.

Among the items that were left alone are the data's own wrong labels, which nobody knows, and a score that puts them on
top must not be blamed for it. So each of those items counts as wrong with the probability that its place among the
planted ones gives it (:mod:`core.review.forecast`), where the two classifiers together place it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold

from core.review.forecast import probabilities, shares_above, shares_wrong

COMBINATION, FIRST = "combination", ("discriminant", "kernel")
_FOLDS, _BOOTSTRAPS, _PENALTY, _POINTS = 5, 50, 1.0, 200
_EVEN = 0.1  # a kind counts so much, beside what the data seem to hold of it


@dataclass(frozen=True, eq=False)
class Copy:
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
            are checked as are reckoned wrong), seconds, chosen.
        curves: candidate, planted, checked, found: share of the planted found against the share checked.
        places: By kind: where in the chosen ranking of all other items each planted one would stand, in [0, 1].
    """

    ranking: str
    weights: dict[str, float]
    candidates: pd.DataFrame
    curves: pd.DataFrame
    places: dict[str, np.ndarray]


def even(scores: pd.DataFrame) -> pd.DataFrame:
    """Members on one scale: how many usual spreads above the usual item, large ones compressed."""
    middle, quarters = scores.median(), scores.quantile([0.25, 0.75])
    spread = (quarters.loc[0.75] - quarters.loc[0.25]).replace(0.0, np.nan)
    away = (scores - middle) / spread.fillna(scores.std(ddof=0)).replace(0.0, 1.0)
    return np.sign(away) * np.log1p(away.abs())


def suspicion(scores: pd.DataFrame, ranking: str, weights: dict[str, float]) -> np.ndarray:
    """``(n,)``: the chosen ranking's score of every item."""
    scaled = even(scores)
    if ranking != COMBINATION:
        return scaled[ranking].to_numpy()
    return scaled[list(weights)].to_numpy() @ np.array(list(weights.values()))


def places(score: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """``(planted,)``: share of the other items that are more suspicious than each planted one."""
    others = np.sort(score[~wrong])
    return 1 - np.searchsorted(others, score[wrong], side="right") / len(others)


def calibrate(copies: list[Copy], seed: int = 0) -> Calibration:
    """Rate every member and the combination on the copies, and choose."""
    members = list(copies[0].scores.columns)
    scaled = [even(copy.scores) for copy in copies]
    x = np.concatenate([table.to_numpy() for table in scaled])
    group = np.concatenate([copy.group for copy in copies])
    truth, shares = _soft([table[list(FIRST)].mean(axis=1).to_numpy() for table in scaled], copies)
    ends = np.cumsum([len(copy.wrong) for copy in copies])[:-1]
    every = np.concatenate(truth)
    likely = shares + _EVEN * max(shares.sum(), 1e-3)
    likely /= likely.mean()
    heavy = np.concatenate([np.full(len(copy.wrong), one) for copy, one in zip(copies, likely, strict=True)])
    combined = np.split(_out_of_fold(x, every, heavy, group), ends)
    weights = dict(zip(members, map(float, _weights(x, every, heavy)), strict=True))
    rows, curves, rng = [], [], np.random.default_rng(seed)
    for copy, table, soft, own in zip(copies, scaled, truth, combined, strict=True):
        for name, score in {**{name: table[name].to_numpy() for name in members}, COMBINATION: own}.items():
            low, high = _interval(soft, score, rng)
            found = np.r_[0, np.cumsum(copy.wrong[np.argsort(-score, kind="stable")])] / copy.wrong.sum()
            at = np.unique(np.linspace(0, len(soft), _POINTS + 1).astype(int))
            rows.append(
                {
                    "candidate": name,
                    "planted": copy.kind,
                    "average_precision": average_precision(soft, score),
                    "low": low,
                    "high": high,
                    "recall": float(found[round(float(soft.sum()))]),
                    "seconds": copy.seconds,
                }
            )
            curves.append(
                pd.DataFrame({"candidate": name, "planted": copy.kind, "checked": at / len(soft), "found": found[at]})
            )
    candidates = pd.DataFrame(rows)
    weighed = candidates["average_precision"] * candidates["planted"].map(
        dict(zip((copy.kind for copy in copies), likely, strict=True))
    )
    ranking = str(weighed.groupby(candidates["candidate"], sort=False).sum().idxmax())
    candidates["chosen"] = candidates["candidate"] == ranking
    chosen = combined if ranking == COMBINATION else [table[ranking].to_numpy() for table in scaled]
    where = {copy.kind: places(score, copy.wrong) for copy, score in zip(copies, chosen, strict=True)}
    return Calibration(ranking, weights, candidates, pd.concat(curves, ignore_index=True), where)


def uncalibrated(scores: pd.DataFrame) -> np.ndarray:
    """``(n,)``: the suspicion where nothing was planted: by the classifiers together."""
    return even(scores)[list(FIRST)].mean(axis=1).to_numpy()


def average_precision(wrong: np.ndarray, score: np.ndarray) -> float:
    """Of a ranking whose items are wrong with probabilities ``wrong``: each counts as both, in these shares."""
    both = np.r_[np.ones(len(wrong)), np.zeros(len(wrong))]
    return float(average_precision_score(both, np.r_[score, score], sample_weight=np.r_[wrong, 1 - wrong]))


def _soft(scores: list[np.ndarray], copies: list[Copy]) -> tuple[list[np.ndarray], np.ndarray]:
    """Probability that each item of each copy is wrong, 1 of the planted; and the shares of the kinds in the data.

    The other items are the same in all copies, and so are the probabilities by place.
    """
    others = int((~copies[0].wrong).sum())
    above = np.stack(
        [shares_above(others, places(score, copy.wrong)) for score, copy in zip(scores, copies, strict=True)]
    )
    by_place = probabilities(above)
    found = []
    for score, copy in zip(scores, copies, strict=True):
        soft = copy.wrong.astype(np.float64)
        left = np.flatnonzero(~copy.wrong)
        left = left[np.argsort(-score[left], kind="stable")]
        soft[left] = np.interp(np.linspace(0, 1, len(left)), np.linspace(0, 1, others), by_place)
        found.append(soft)
    return found, shares_wrong(above)


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
