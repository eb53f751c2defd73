"""The member scores of the review queue: each one rates how suspicious the label of every item is.

An item is an image if every image has one class in all its tasks, else a row of the task list. For all scores, **larger
is more suspicious**.

================= ==========================================================================================
loss              of the adapted model, the image being a query of scoring tasks (:mod:`.scoring`)
margin            the negative margin of the same: largest logit of another class minus that of the given class
classifier        minus the log-probability of the given class by the logarithmic pool of the next two
discriminant      by :func:`classifiers.discriminant`, each image left out
kernel            by :func:`classifiers.kernel`, each image left out
neighbours        distance to the nearest images of the given class minus that of other classes, in the metric of the
                  discriminant
support_loss      loss of a support image under its own tasks adapted without it (of rows, in their own task)
task_loss         rows only: loss of a query row in its own task
others            rows only: mean of ``classifier`` over the other rows of the task
votes             rows only: share of the image's rows that give it another class
self_influence    log of the squared norm of the meta-gradient of the row's loss, by random probes
harm              minus the influence on the held-out loss, by the dot product of gradients
cross_validated   minus the log-probability by five-fold cross-validation of a small network, independent of the
                  meta-learned model (Northcutt et al. 2021; slow)
================= ==========================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from core.baselines.pooled import cross_validated_probabilities
from core.data import ImageSet
from core.influence.scores import instance_table
from core.influence.solvers import probe_vectors
from core.influence.targets import target_gradient
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.maml.objective import Bilevel
from core.maml.vectors import flatten
from core.review.classifiers import LabelledFeatures, discriminant, kernel, log_pool, neighbours
from core.review.features import SHIFTS, image_features
from core.review.image_labels import ImageLabelPairs
from core.review.scoring import score_pairs, task_shape, tasks_per_round
from core.review.settings import QueueSettings
from core.runtime.progress import Progress
from core.tasks.tasklist import TaskList

FAST = ("loss", "margin", "classifier", "discriminant", "kernel", "neighbours", "support_loss")
"""Scores that are always computed; those of rows add ``ROWS``, and :data:`core.review.settings.SLOW` are on request."""
ROWS = ("task_loss", "others", "votes")
FOLDS, EPOCHS = 5, 20
"""Folds and epochs of the networks of ``cross_validated``."""
_PROBES = 6
"""Random directions of the Hutchinson estimate; its relative error is about (2 / probes)^0.5, enough to rank by."""
LOG_P_FLOOR = -60.0
"""Log-probabilities below are cut off, as float32 underflows near them."""


@dataclass(frozen=True, eq=False)
class ScoreInputs:
    """The inputs of the scores.

    Attributes:
        heldout: Target of ``harm``.
        episodes_of: Returns the episodes of a task list on the device.
        features: ``(images of the set, d)`` (:func:`features_of`); None until they are computed.
    """

    images: ImageSet
    model: Bilevel
    params: Params
    heldout: TaskList
    episodes_of: Callable[[TaskList], Episodes]
    features: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """The scores of n items.

    Attributes:
        scores: One column per score, ``(n,)`` each; the median where a score could not be computed for an item.
        log_p: Log-probability of every class for every image by the classifiers, ``(images, classes)``.
        images: ``(images,)`` positions in the image set, sorted: the rows of ``log_p`` and ``whitened``.
        whitened: ``(images, d)`` features in the metric of the discriminant.
        seconds: By stage.
    """

    scores: pd.DataFrame
    log_p: np.ndarray
    images: np.ndarray
    whitened: np.ndarray
    seconds: dict[str, float] = field(default_factory=dict)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Record the duration of a block in ``seconds``."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 2)


def features_of(
    images: ImageSet, model: Bilevel, params: Params, pairs: ImageLabelPairs, progress: Progress
) -> np.ndarray:
    """Return features of every image of the pairs, ``(images of the set, d)``; zeros for other images."""
    positions = np.unique(pairs.image)
    progress.stage("features", len(positions) * SHIFTS)
    features = image_features(model.network, params, images, positions, progress.advance)
    all_features = np.zeros((len(images), features.shape[1]), np.float32)
    all_features[positions] = features
    return all_features


def score_labels(
    inputs: ScoreInputs,
    pairs: ImageLabelPairs,
    tasks: TaskList,
    by_row: bool,
    settings: QueueSettings,
    progress: Progress,
) -> ScoreTable:
    """Return the scores of every pair, or with ``by_row`` of every row of ``tasks`` in use.

    ``tasks`` have these pairs, without ``by_row`` not necessarily all of them.
    """
    seconds: dict[str, float] = {}
    with timed(seconds, "classifiers"):
        progress.stage("classifiers", 3)
        classified = _classifier_scores(inputs, pairs, progress)
    table = classified.scores
    with timed(seconds, "scoring tasks"):
        shape = task_shape(tasks)
        progress.stage("scoring tasks", settings.rounds * tasks_per_round(pairs, shape))
        table["loss"], table["margin"] = score_pairs(
            inputs.model,
            inputs.params,
            pairs,
            shape,
            inputs.episodes_of,
            inputs.images.ids,
            rounds=settings.rounds,
            seed=settings.seed,
            on_chunk=progress.advance,
        )
    if "cross_validated" in settings.slow:
        with timed(seconds, "cross-validation"):
            progress.stage("cross-validation", FOLDS)
            table["cross_validated"] = _cross_validated_scores(inputs.images, pairs, settings.seed, progress)
    rows = _row_scores(inputs, tasks, settings, progress, seconds)
    of_row = _pair_of_row(pairs, tasks, inputs.images)
    in_use = of_row >= 0
    if by_row:
        table = table.iloc[of_row[in_use]].reset_index(drop=True)
        table = pd.concat([table, rows[in_use].reset_index(drop=True)], axis=1)
        table["votes"] = 1 - pairs.share[of_row[in_use]]
        groups = table["classifier"].groupby(tasks.rows["task_id"][in_use].to_numpy(), sort=False)
        others = np.maximum(groups.transform("size") - 1, 1)
        table["others"] = (groups.transform("sum") - table["classifier"]) / others
        # A row has one of the two losses in its own task, by its role, which is used for both.
        loss = table["task_loss"].fillna(table["support_loss"])
        table["task_loss"], table["support_loss"] = loss, table["support_loss"].fillna(table["task_loss"])
    else:
        means = rows.drop(columns="task_loss")[in_use].groupby(of_row[in_use]).mean()
        table = pd.concat([table, means.reindex(range(len(pairs)))], axis=1)
    table = table.fillna(table.median()).fillna(0.0)
    return ScoreTable(table, classified.log_p, classified.images, classified.whitened, seconds)


def _cross_validated_scores(images: ImageSet, pairs: ImageLabelPairs, seed: int, progress: Progress) -> np.ndarray:
    names = np.array(pairs.classes, dtype=object)
    rows = pd.DataFrame({"image_id": images.ids[pairs.image], "class": names[pairs.label]})
    p = cross_validated_probabilities(
        images, rows, list(pairs.classes), folds=FOLDS, epochs=EPOCHS, seed=seed, on_fold=progress.advance
    )
    return -np.maximum(np.log(p[np.arange(len(pairs)), pairs.label] + 1e-300), LOG_P_FLOOR)


def _classifier_scores(inputs: ScoreInputs, pairs: ImageLabelPairs, progress: Progress) -> ScoreTable:
    main = np.flatnonzero(pairs.is_main)
    main = main[np.argsort(pairs.image[main])]
    images = pairs.image[main]
    assert inputs.features is not None
    data = LabelledFeatures(inputs.features[images], pairs.label[main], len(pairs.classes), pairs.share[main])
    by_discriminant, whitened = discriminant(data)
    progress.advance()
    by_kernel = kernel(data)
    progress.advance()
    by_neighbours = neighbours(whitened, data)
    progress.advance()
    pooled = log_pool(by_discriminant, by_kernel, data)
    rows = np.searchsorted(images, pairs.image)
    scores = {
        name: -np.maximum(log_p[rows, pairs.label], LOG_P_FLOOR)
        for name, log_p in (("classifier", pooled), ("discriminant", by_discriminant), ("kernel", by_kernel))
    }
    # Neighbours rate the main class of an image; its other classes get the opposite.
    scores["neighbours"] = np.where(pairs.is_main, by_neighbours[rows], -by_neighbours[rows])
    return ScoreTable(pd.DataFrame(scores), pooled, images, whitened)


def _row_scores(
    inputs: ScoreInputs, tasks: TaskList, settings: QueueSettings, progress: Progress, seconds: dict[str, float]
) -> pd.DataFrame:
    episodes = inputs.episodes_of(tasks)
    table = pd.DataFrame(index=range(len(tasks.rows)))
    query = (tasks.rows["role"] == "query").to_numpy()
    with timed(seconds, "own tasks"):
        progress.stage("own tasks", len(tasks))
        evaluation = evaluate(inputs.model, inputs.params, episodes, progress.advance)
        table.loc[query, "task_loss"] = evaluation.rows["loss"].to_numpy()
        table["support_loss"] = left_out_support_losses(inputs, tasks, progress)
    if "self_influence" in settings.slow:
        with timed(seconds, "self-influence"):
            table["self_influence"] = _gradient_norms(inputs, episodes, settings.seed, progress)
    if "harm" in settings.slow:
        with timed(seconds, "harm"):
            heldout = inputs.episodes_of(inputs.heldout)
            v, _ = target_gradient(inputs.model, inputs.params, heldout)
            progress.stage("harm", len(tasks))
            influence = instance_table(inputs.model, inputs.params, v, episodes, progress.advance)
            table["harm"] = -influence["score"].to_numpy()
    return table


def left_out_support_losses(inputs: ScoreInputs, tasks: TaskList, progress: Progress) -> np.ndarray:
    """Return ``(rows,)`` losses of support rows under their tasks adapted without them and a row of every other class.

    NaN for query rows, and where a class would have no support left.
    """
    rows = tasks.rows
    support = rows[(rows["role"] == "support") & (rows["weight"] > 0)]
    of_class, losses = support.groupby(["task_id", "label"], sort=False), np.full(len(rows), np.nan)
    fold, size = of_class.cumcount().to_numpy(), of_class["weight"].transform("size")
    is_usable = size.groupby(support["task_id"], sort=False).transform("min").to_numpy() > 1
    tasks_per_fold = support["task_id"][is_usable].groupby(fold[is_usable]).nunique()
    if len(tasks_per_fold):
        progress.stage("own tasks without each support image", int(tasks_per_fold.sum()))
    for number in range(int(fold.max()) + 1):
        held_out = is_usable & (fold == number)
        if not held_out.any():
            continue
        rows_of_tasks = support[is_usable & np.isin(support["task_id"], support["task_id"][held_out])]
        is_held_out = held_out[np.searchsorted(support.index, rows_of_tasks.index)]
        split = rows_of_tasks.assign(role=np.where(is_held_out, "query", "support"))
        split = split.iloc[np.lexsort((is_held_out, pd.factorize(split["task_id"])[0]))]
        episodes = inputs.episodes_of(TaskList(split.reset_index(drop=True)))
        evaluation = evaluate(inputs.model, inputs.params, episodes, progress.advance)
        losses[split.index[split["role"] == "query"]] = evaluation.rows["loss"].to_numpy()
    return losses


def _gradient_norms(inputs: ScoreInputs, episodes: Episodes, seed: int, progress: Progress) -> np.ndarray:
    """Return ``(rows,)`` logarithms of ``E (g . r)^2`` over random r of independent unit variance (Hutchinson 1989)."""
    like = flatten(inputs.params)
    generator = torch.Generator().manual_seed(seed)
    progress.stage("self-influence", _PROBES * len(episodes))
    total = np.zeros(len(episodes.tasks.rows))
    for _ in range(_PROBES):
        direction = probe_vectors(like.shape, like, generator)
        table = instance_table(inputs.model, inputs.params, direction, episodes, progress.advance)
        total += table["score"].to_numpy() ** 2
    return np.log(total / _PROBES + 1e-300)


def _pair_of_row(pairs: ImageLabelPairs, tasks: TaskList, images: ImageSet) -> np.ndarray:
    """Return ``(rows,)``: the pair of every row; -1 for none."""
    rows = tasks.rows
    image = rows["image_id"].map(images.index).to_numpy()
    label = pd.Index(pairs.classes).get_indexer(pd.Index(rows["class"])).astype(np.int64)
    pair_by_key = pd.Series(np.arange(len(pairs)), index=pairs.image * len(pairs.classes) + pairs.label)
    pair = pair_by_key.reindex(image * len(pairs.classes) + label).fillna(-1).to_numpy().astype(np.int64)
    return np.where((label >= 0) & (rows["weight"] > 0).to_numpy(), pair, -1)
