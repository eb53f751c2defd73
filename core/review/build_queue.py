"""Build the review queue: score every label, choose the ranking on injected errors, and sort the items by it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from core.review.calibration import Calibration, ScoredCopy, calibrate, default_suspicion, error_llr, suspicion
from core.review.forecast import ERROR_LLR, forecast
from core.review.image_labels import ImageLabelPairs, image_label_pairs
from core.review.injected_noise import IMAGE_KINDS, ROW_KINDS, corrupt_images, corrupt_rows
from core.review.member_scores import ScoreInputs, features_of, score_labels, timed
from core.review.settings import QueueSettings
from core.runtime.errors import UserError
from core.runtime.progress import NamedProgress, Progress
from core.tasks.tasklist import TaskList


@dataclass(frozen=True, eq=False)
class BuiltQueue:
    """A review queue and how it was built.

    Attributes:
        items: rank, level, task_id, role, image_id, class, suspicion, probability that the label is wrong, suggested,
            suggested_probability, second, occurrences, one column per score (:mod:`core.review.member_scores`), and
            where it is calibrated :data:`core.review.forecast.ERROR_LLR`; most suspicious first.
        map: image_id, x, y: the images on the first two principal components of their features.
        features: ``(images, d)`` float16, of the images of the map.
        calibration: None where it is not calibrated.
        summary: level, items, classes, calibrated, ranking, seconds by stage, and of the calibration weights,
            classifier, planted, wrong (expected number of label errors).
    """

    items: pd.DataFrame
    map: pd.DataFrame
    features: np.ndarray
    calibration: Calibration | None
    summary: dict[str, Any]


def build_review_queue(inputs: ScoreInputs, tasks: TaskList, settings: QueueSettings, progress: Progress) -> BuiltQueue:
    """Return the review queue of the training tasks; the features in ``inputs`` are computed here.

    Raises:
        UserError: too few classes or images to compare a label with others.
    """
    pairs, seconds = image_label_pairs(tasks, inputs.images), dict[str, float]()
    if len(pairs.classes) < 2:
        raise UserError(
            "The training tasks have a single class.", "Label errors can be detected with two classes or more."
        )
    by_row = pairs.has_conflicting_labels
    with timed(seconds, "features"):
        features = features_of(inputs.images, inputs.model, inputs.params, pairs, progress)
    inputs = replace(inputs, features=features)
    with timed(seconds, "scores"):
        scored = score_labels(inputs, pairs, tasks, by_row, settings, progress)
    log_p = scored.log_p[np.searchsorted(scored.images, pairs.image)]
    calibration = None
    if settings.calibrate:
        with timed(seconds, "planted labels"):
            group = pairs.image[pairs.of_row[pairs.of_row >= 0]] if by_row else pairs.image
            copies, rng = [], np.random.default_rng(settings.seed)
            kinds, corrupt = (ROW_KINDS, corrupt_rows) if by_row else (IMAGE_KINDS, corrupt_images)
            for kind in kinds:
                start = time.perf_counter()
                noisy = corrupt(inputs.images, pairs, tasks, log_p, kind, rng)
                named = NamedProgress(progress, f"{kind} errors injected")
                rescored = score_labels(inputs, noisy.pairs, noisy.tasks, by_row, settings, named)
                copies.append(ScoredCopy(kind, rescored.scores, noisy.is_wrong, group, time.perf_counter() - start))
            calibration = calibrate(copies, len(pairs.classes), settings.seed)
    items = _items(pairs, tasks, inputs.images.ids, scored.scores, log_p, calibration)
    with timed(seconds, "map"):
        plane = PCA(2, svd_solver="randomized", random_state=0).fit_transform(scored.whitened)
    summary: dict[str, Any] = {
        "level": "instance" if by_row else "image",
        "items": len(items),
        "classes": len(pairs.classes),
        "calibrated": calibration is not None,
        "ranking": calibration.ranking if calibration else "discriminant and kernel",
        "seconds": seconds | {f"scores, {name}": value for name, value in scored.seconds.items()},
    }
    if calibration:
        summary |= {
            "weights": calibration.weights,
            "classifier": calibration.classifier,
            "planted": calibration.planted,
            "wrong": float(items["probability"].sum()),
        }
    places = pd.DataFrame({"image_id": inputs.images.ids[scored.images], "x": plane[:, 0], "y": plane[:, 1]})
    return BuiltQueue(items, places, scored.whitened.astype(np.float16), calibration, summary)


def _items(
    pairs: ImageLabelPairs,
    tasks: TaskList,
    ids: np.ndarray,
    scores: pd.DataFrame,
    log_p: np.ndarray,
    calibration: Calibration | None,
) -> pd.DataFrame:
    by_row, in_use, names = pairs.has_conflicting_labels, pairs.of_row >= 0, np.array(pairs.classes, dtype=object)
    pair = pairs.of_row[in_use] if by_row else np.arange(len(pairs))
    rows = tasks.rows[in_use]
    items = pd.DataFrame(
        {
            "level": "instance" if by_row else "image",
            "task_id": rows["task_id"].to_numpy() if by_row else "",
            "role": rows["role"].to_numpy() if by_row else "",
            "image_id": ids[pairs.image[pair]],
            "class": names[pairs.label[pair]],
            "suspicion": suspicion(scores, calibration.ranking, calibration.weights)
            if calibration
            else default_suspicion(scores),
            **_suggestions(log_p[pair], pairs.label[pair], names),
            "occurrences": pairs.count[pair],
        }
    )
    items = pd.concat([items, scores.reset_index(drop=True)], axis=1)
    items = items.sort_values("suspicion", ascending=False, kind="stable", ignore_index=True)
    if calibration:
        items[ERROR_LLR] = error_llr(items[calibration.classifier], len(pairs.classes))
    expected = forecast(items)
    items.insert(6, "probability", expected.probability if expected else np.nan)
    # A suggestion is right where the label is wrong and the classifiers, excluding the given class, are right.
    if expected:
        items["suggested_probability"] *= items["probability"]
    items.insert(0, "rank", np.arange(len(items)))
    return items


def _suggestions(log_p: np.ndarray, label: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """Return the most likely other class of every item, its probability if the given one is wrong, and the next class.

    ``log_p`` ``(n, classes)`` are log-probabilities, ``label`` ``(n,)`` the given classes.
    """
    others = np.nan_to_num(log_p.astype(np.float64), nan=-1e9)
    others[np.arange(len(label)), label] = -np.inf
    order = np.argsort(-others, 1, kind="stable")
    p = np.exp(others - np.logaddexp.reduce(others, 1, keepdims=True))
    second = order[:, 1] if len(names) > 2 else order[:, 0]
    return {
        "suggested": names[order[:, 0]],
        "suggested_probability": np.take_along_axis(p, order[:, :1], 1)[:, 0],
        "second": names[second],
    }
