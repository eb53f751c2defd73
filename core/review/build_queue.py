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
from core.review.image_labels import image_label_pairs
from core.review.injected_noise import IMAGE_KINDS, ROW_KINDS, inject_label_noise
from core.review.member_scores import ScoreInputs, ScoreSettings, ScoreTable, features_of, score_labels, timed
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


class QueueBuilder:
    """A builder of the review queue of one task list.

    Args:
        inputs: Images, model and held-out tasks; features are computed here.
        tasks: The training tasks.
        settings: The scores to compute.
        progress: Reports every stage.

    Raises:
        UserError: there is one class only.
    """

    def __init__(self, inputs: ScoreInputs, tasks: TaskList, settings: ScoreSettings, progress: Progress) -> None:
        self.pairs = image_label_pairs(tasks, inputs.images)
        if len(self.pairs.classes) < 2:
            raise UserError(
                "The training tasks have a single class.", "Label errors can be detected with two classes or more."
            )
        self.by_row = self.pairs.has_conflicting_labels
        self.tasks, self.settings, self.progress = tasks, settings, progress
        self.seconds: dict[str, float] = {}
        with timed(self.seconds, "features"):
            features = features_of(inputs.images, inputs.model, inputs.params, self.pairs, progress)
        self.inputs = replace(inputs, features=features)

    def build(self, *, should_calibrate: bool) -> BuiltQueue:
        """Return the queue.

        Args:
            should_calibrate: Inject label errors into copies, to choose the ranking and to predict how many are left.

        Raises:
            UserError: too few classes or images to compare a label with others.
        """
        with timed(self.seconds, "scores"):
            scored = score_labels(self.inputs, self.pairs, self.tasks, self.by_row, self.settings, self.progress)
        calibration = None
        if should_calibrate:
            with timed(self.seconds, "planted labels"):
                calibration = self._calibrate(scored)
        items = self._items(scored, calibration)
        with timed(self.seconds, "map"):
            plane = PCA(2, svd_solver="randomized", random_state=0).fit_transform(scored.whitened)
        ids = self.inputs.images.ids[scored.images]
        summary: dict[str, Any] = {
            "level": "instance" if self.by_row else "image",
            "items": len(items),
            "classes": len(self.pairs.classes),
            "calibrated": calibration is not None,
            "ranking": calibration.ranking if calibration else "discriminant and kernel",
            "seconds": self.seconds | {f"scores, {name}": value for name, value in scored.seconds.items()},
        }
        if calibration:
            summary |= {
                "weights": calibration.weights,
                "classifier": calibration.classifier,
                "planted": calibration.planted,
                "wrong": float(items["probability"].sum()),
            }
        places = pd.DataFrame({"image_id": ids, "x": plane[:, 0], "y": plane[:, 1]})
        return BuiltQueue(items, places, scored.whitened.astype(np.float16), calibration, summary)

    def _calibrate(self, scored: ScoreTable) -> Calibration:
        pairs, images = self.pairs, self.inputs.images
        log_p = scored.log_p[np.searchsorted(scored.images, pairs.image)]
        rng = np.random.default_rng(self.settings.seed)
        group = pairs.image[pairs.of_row[pairs.of_row >= 0]] if self.by_row else pairs.image
        copies = []
        for kind in ROW_KINDS if self.by_row else IMAGE_KINDS:
            start = time.perf_counter()
            noisy = inject_label_noise(images, pairs, self.tasks, log_p, kind, self.by_row, rng)
            progress = NamedProgress(self.progress, f"{kind} errors injected")
            rescored = score_labels(self.inputs, noisy.pairs, noisy.tasks, self.by_row, self.settings, progress)
            copies.append(ScoredCopy(kind, rescored.scores, noisy.is_wrong, group, time.perf_counter() - start))
        return calibrate(copies, len(pairs.classes), self.settings.seed)

    def _items(self, scored: ScoreTable, calibration: Calibration | None) -> pd.DataFrame:
        pairs, rows = self.pairs, self.tasks.rows
        in_use = pairs.of_row >= 0
        pair = pairs.of_row[in_use] if self.by_row else np.arange(len(pairs))
        names = np.array(pairs.classes, dtype=object)
        items = pd.DataFrame(
            {
                "level": "instance" if self.by_row else "image",
                "task_id": rows.loc[in_use, "task_id"].to_numpy() if self.by_row else "",
                "role": rows.loc[in_use, "role"].to_numpy() if self.by_row else "",
                "image_id": self.inputs.images.ids[pairs.image[pair]],
                "class": names[pairs.label[pair]],
                "suspicion": suspicion(scored.scores, calibration.ranking, calibration.weights)
                if calibration
                else default_suspicion(scored.scores),
                **suggestions(
                    scored.log_p[np.searchsorted(scored.images, pairs.image[pair])], pairs.label[pair], names
                ),
                "occurrences": pairs.count[pair],
            }
        )
        items = pd.concat([items, scored.scores.reset_index(drop=True)], axis=1)
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


def suggestions(log_p: np.ndarray, label: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """Return the most likely other class of every item, its probability if the given one is wrong, and the next class.

    Args:
        log_p: ``(n, classes)`` log-probabilities.
        label: ``(n,)`` the given classes.
        names: ``(classes,)``.
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
