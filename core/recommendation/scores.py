"""The candidate scores: how suspicious every task, image and row is. For all of them, larger is more suspicious.

=============== ============================================================================================
classifier      minus the log-probability of the given class by a discriminant on the features of the images
                (:func:`core.review.classifiers.discriminant`), each image left out; of a task, the mean over its rows
scoring_loss    cross-entropy of the given class in scoring tasks (:mod:`core.review.scoring`), which are drawn anew;
                of a task, the mean over its rows
loss            adapted loss in the item's own tasks, as rankings show it (:mod:`core.influence.scores`)
suspected       tasks only: share of the rows for which scoring tasks prefer another class than the given one
self_influence  how much removing the item raises its own loss (:mod:`core.influence.self_influence`)
harm            minus the influence on the mean loss of all held-out tasks
=============== ============================================================================================

The directions that influence is computed along are those of the model and its training tasks, for the copies too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.influence.curvature import task_gradients
from core.influence.methods import DEFAULT, METHODS, estimator
from core.influence.scores import image_table, instance_table, task_table
from core.influence.self_influence import directions, squared_sums
from core.influence.solve import Solver
from core.influence.solvers import SolveError
from core.influence.targets import target_gradient
from core.maml.evaluation import evaluate
from core.maml.loaded import Loaded
from core.maml.storage import StepWriter
from core.review.classifiers import LabelledFeatures, discriminant
from core.review.image_labels import image_label_pairs
from core.review.member_scores import LOG_P_FLOOR, features_of, timed
from core.review.scoring import score_pairs, task_shape, tasks_per_round
from core.runtime.progress import Progress
from core.tasks.tasklist import KEY

SCORES = ("classifier", "scoring_loss", "loss", "suspected", "self_influence", "harm")
"""In the order in which they are preferred where they find errors equally well: the model has learned to fit the errors
that it was trained on, which lowers the later scores of these errors more than the earlier ones."""
STAGES = {
    "tasks": {
        "classifier": "classifier",
        "scoring_loss": "scoring tasks",
        "loss": "adapted losses",
        "suspected": "scoring tasks",
        "self_influence": "gradients",
        "harm": "gradients",
    },
    "images": {
        "classifier": "classifier",
        "scoring_loss": "scoring tasks",
        "loss": "row scores",
        "self_influence": "self-influence of rows",
        "harm": "row scores",
    },
}
"""By level, the scores and the stage that each takes on a copy; scores may share a stage."""
STAGES["instances"] = STAGES["images"]
_SOLVE: dict[str, Any] = {"curvature_tasks": 8, "damping": 0.003, "tolerance": 0.1, "rank": 8}
"""Settings of the solve of influence. On the demos, 16 tasks and a tolerance of 0.01 find noisy tasks equally well, in
four times the time."""
_PROBES = 2
"""Passes of the sketch of self-influence: few, as its errors average out over thousands of rows."""
_GRADIENT_BYTES = 5e8
"""Memory for the gradients of tasks."""
Seconds = dict[str, float]


@dataclass(frozen=True, eq=False)
class Directions:
    """What the scores by gradients need of the model.

    Attributes:
        influence: ``(P,)``, the solution of the solve for the held-out loss.
        inverse: The damped inverse curvature of self-influence.
        sketch: ``(probes, P)`` (:func:`core.influence.self_influence.directions`).
        note: A sentence on what had to be replaced; empty if nothing.
    """

    influence: Tensor
    inverse: Callable[[Tensor], Tensor]
    sketch: Tensor
    note: str = ""


def model_directions(loaded: Loaded, steps: StepWriter, progress: Progress, seconds: Seconds) -> Directions:
    """Return the directions of influence on all held-out tasks and of self-influence.

    Where the solve fails, influence is a product of gradients without curvature, and the note says so.
    """
    settings = estimator(DEFAULT, **_SOLVE).solve
    of_self = METHODS["self-influence"].estimator.solve
    assert settings is not None
    assert of_self is not None
    with timed(seconds, "influence solve"):
        progress.stage("target gradient", len(loaded.heldout))
        v, _ = target_gradient(loaded.model, loaded.params, loaded.heldout, progress.advance)
        solver, note = Solver(loaded, loaded.model, settings, steps, progress), ""
        basis = solver.basis()
        try:
            u = solver.solve(v).x
        except SolveError as error:
            u, note = v, f"Influence is measured without curvature, because its solve failed. {error}"
    shift = loaded.model.delta + of_self.damping * max(solver.largest, 0.0)
    return Directions(u, basis.inverse(shift), directions(basis, shift, 0, _PROBES, of_self.seed), note)


class LabelClassifier:
    """The classifier of the training images, on their features by the model.

    Attributes:
        seconds: What the last :meth:`log_probabilities` took, or took when they were computed.
    """

    def __init__(self, loaded: Loaded, progress: Progress) -> None:
        self._images, self._pairs = loaded.images, image_label_pairs(loaded.tasks, loaded.images)
        self._given: tuple[np.ndarray, float] | None = None
        self.seconds = 0.0
        self._features = features_of(loaded.images, loaded.model, loaded.params, self._pairs, progress)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in the order of the columns of :meth:`log_probabilities`."""
        return self._pairs.classes

    def log_probabilities(self, labels: np.ndarray | None = None) -> np.ndarray:
        """Return the leave-one-out log-probability of every class for every image, ``(images of the set, classes)``.

        Those of the given classes are computed once. They are NaN for images in no training task, and for the only
        image of a class.

        Args:
            labels: ``(images of the set,)``: class numbers of the image set to learn from in place of the given
                classes; -1 leaves the given one.
        """
        if labels is None and self._given is not None:
            log_p, self.seconds = self._given
            return log_p
        start, pairs = time.perf_counter(), self._pairs
        main = np.flatnonzero(pairs.is_main)
        images, learned = pairs.image[main], pairs.label[main]
        if labels is not None:
            number = {name: position for position, name in enumerate(pairs.classes)}
            of_set = np.array([number.get(name, -1) for name in self._images.class_names])
            learned = np.where(labels[images] < 0, learned, of_set[labels[images]])
        data = LabelledFeatures(self._features[images], learned, len(pairs.classes), pairs.share[main])
        log_p = np.full((len(self._images), len(pairs.classes)), np.nan)
        log_p[images] = discriminant(data)[0]
        self.seconds = round(time.perf_counter() - start, 2)
        if labels is None:
            self._given = log_p, self.seconds
        return log_p


def label_scores(
    loaded: Loaded,
    classes: tuple[str, ...],
    log_p: np.ndarray,
    rounds: int,
    seed: int,
    progress: Progress,
    seconds: Seconds,
) -> pd.DataFrame:
    """Return the rows of positive weight of the training tasks with the scores of their labels.

    Args:
        classes, log_p: Of :class:`LabelClassifier`.

    Returns:
        task_id, role, image_id, class, classifier, scoring_loss, is_suspected, is_main (whether most rows of the image
        have this class); in the order of the task table.

    Raises:
        UserError: fewer classes with two images than classes per task.
    """
    pairs, shape = image_label_pairs(loaded.tasks, loaded.images), task_shape(loaded.tasks)
    progress.stage("scoring tasks", rounds * tasks_per_round(pairs, shape))
    with timed(seconds, "scoring tasks"):
        loss, negative_margin = score_pairs(
            loaded.model,
            loaded.params,
            pairs,
            shape,
            loaded.episodes,
            loaded.images.ids,
            rounds=rounds,
            seed=seed,
            on_chunk=progress.advance,
        )
    column = np.array([classes.index(name) for name in pairs.classes])
    classifier = -np.maximum(log_p[pairs.image, column[pairs.label]], LOG_P_FLOOR)
    in_use = pairs.of_row >= 0
    pair = pairs.of_row[in_use]
    return loaded.tasks.rows.loc[in_use, [*KEY, "class"]].assign(
        classifier=np.nan_to_num(classifier, nan=np.nanmedian(classifier))[pair],
        scoring_loss=loss[pair],
        is_suspected=negative_margin[pair] > 0,
        is_main=pairs.is_main[pair],
    )


def task_scores(
    loaded: Loaded, rows: pd.DataFrame, along: Directions, progress: Progress, seconds: Seconds
) -> pd.DataFrame:
    """Return task_id and one column per score, in the order of the training tasks.

    ``rows`` are theirs (:func:`label_scores`).
    """
    progress.stage("adapted losses", len(loaded.train))
    with timed(seconds, "adapted losses"):
        loss = evaluate(loaded.model, loaded.params, loaded.train, progress.advance).loss
    with timed(seconds, "gradients"):
        self_influence, influence = _products_of_tasks(loaded, along, progress)
    columns = {"loss": loss, "self_influence": self_influence, "harm": -influence}
    return _task_table(loaded.tasks.task_ids, rows, pd.DataFrame(columns, loaded.tasks.task_ids))


def _products_of_tasks(loaded: Loaded, along: Directions, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Return self-influence and influence ``(N,)`` of the training tasks."""
    progress.stage("gradients of the tasks", len(loaded.train))
    at_once = max(1, int(_GRADIENT_BYTES / (along.influence.numel() * along.influence.element_size())))
    parts = []
    for positions in np.array_split(np.arange(len(loaded.train)), -(-len(loaded.train) // at_once)):
        g = task_gradients(loaded.model, loaded.params, loaded.train, positions, progress.advance)
        parts.append(torch.stack([(g * along.inverse(g)).sum(1), g @ along.influence]))
    of_self, influence = torch.cat(parts, 1).double().cpu().numpy()
    return of_self, influence


def _task_table(task_ids: list[str], rows: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of tasks, by task id, with the means of those of their rows."""
    means = rows.groupby("task_id", sort=False)[["classifier", "scoring_loss", "is_suspected"]].mean()
    table = scores.join(means.rename(columns={"is_suspected": "suspected"})).reindex(task_ids)
    return _filled(table.rename_axis("task_id").reset_index())


def row_scores(
    loaded: Loaded, rows: pd.DataFrame, along: Directions, steps: StepWriter, progress: Progress, seconds: Seconds
) -> dict[str, pd.DataFrame]:
    """Return the scores of the tasks, images and rows of the training tasks, without self-influence.

    Args:
        rows: Theirs (:func:`label_scores`).

    Returns:
        ``tasks``: as :func:`task_scores`; ``images``: image_id, class (given most often) and one column per score;
        ``instances``: task_id, role, image_id, class and one column per score.
    """
    with timed(seconds, "row scores"):
        scored = _rows_along(loaded, along.influence, "row scores", steps, progress)
    tasks, by_image = (one.assign(harm=-one["score"]) for one in (task_table(scored), image_table(scored)))
    images = rows.loc[rows["is_main"], ["image_id", "class", "classifier", "scoring_loss"]].drop_duplicates("image_id")
    images = images.merge(by_image[["image_id", "loss", "harm"]], on="image_id", validate="one_to_one")
    instances = rows[[*KEY, "class", "classifier", "scoring_loss"]].reset_index(drop=True)
    return {
        "tasks": _task_table(loaded.tasks.task_ids, rows, tasks.set_index("task_id")[["loss", "harm"]]),
        "images": _filled(images),
        "instances": instances.assign(loss=scored["loss"].to_numpy(), harm=-scored["score"].to_numpy()),
    }


def with_self_influence(
    loaded: Loaded,
    tables: dict[str, pd.DataFrame],
    along: Directions,
    steps: StepWriter,
    progress: Progress,
    seconds: Seconds,
) -> dict[str, pd.DataFrame]:
    """Return the tables of images and rows of :func:`row_scores` with their self-influence."""
    with timed(seconds, "self-influence of rows"):
        passes = [_rows_along(loaded, one, "self-influence of rows", steps, progress) for one in along.sketch]
    products = np.stack([rows["score"].to_numpy() for rows in passes])
    of_images = squared_sums(products, passes[0], "image_id", np.ones(products.shape[1]))
    images, instances = tables["images"], tables["instances"]
    return {
        "images": images.assign(self_influence=of_images.loc[images["image_id"]].to_numpy()),
        "instances": instances.assign(self_influence=(products**2).sum(0)),
    }


def _rows_along(loaded: Loaded, direction: Tensor, stage: str, steps: StepWriter, progress: Progress) -> pd.DataFrame:
    """Return the rows of positive weight, scored along a direction (:func:`core.influence.scores.instance_table`)."""
    progress.stage(stage, len(loaded.train))
    table = instance_table(loaded.model, loaded.params, direction, loaded.train, progress.advance, steps.memory())
    return table[table["weight"] > 0]


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose missing scores, such as of tasks without rows of positive weight, are the median."""
    scores = [name for name in SCORES if name in table]
    return table.assign(**table[scores].fillna(table[scores].median()).fillna(0.0))
