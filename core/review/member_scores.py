"""The scores that a review queue is made of: each says by itself how wrong the label of every item looks.

An item is an image, where every image was given one class in all its tasks, else a row of the task list. All scores are
**larger the more suspicious**.

================= ==========================================================================================
loss, margin      of the adapted model, the image being a query of tasks drawn for scoring (:mod:`.scoring`)
classifier        minus the log-probability of the given class by :func:`classifiers.discriminant` and
                  :func:`classifiers.kernel` together, each image left out
discriminant      by the first of these alone
kernel            by the second alone
neighbours        nearest images of the own class against those of others, in the metric of the discriminant
support_loss      loss of a support image under its own tasks adapted without it (of rows, in their own task)
task_loss         rows only: loss of a query row in its own task
others            rows only: mean of ``classifier`` over the other rows of the task
votes             rows only: share of the image's rows that give it another class
self_influence    squared norm of the gradient of the row's loss by the meta-parameters, by random directions
harm              minus the influence on the held-out loss, by gradients alone (``dot``)
cross_validated   minus the log-probability by five-fold cross-validation of a small network (slow)
================= ==========================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from core.data import ImageSet
from core.influence.scores import instance_table
from core.influence.targets import target_gradient
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.maml.objective import Bilevel
from core.maml.vectors import flatten
from core.review.classifiers import Labelled, discriminant, kernel, neighbours
from core.review.cross_validation import cross_validated
from core.review.features import SHIFTS, image_features
from core.review.image_labels import ImageLabelPairs
from core.review.scoring import score_pairs, shape_of
from core.runtime.progress import Progress
from core.tasks.tasklist import TaskList

FAST = ("loss", "margin", "classifier", "discriminant", "kernel", "neighbours", "support_loss")
ROWS = ("task_loss", "others", "votes")
SLOW = ("self_influence", "harm", "cross_validated")
_DIRECTIONS = 6
_FLOOR = -60.0  # of log-probabilities


@dataclass(frozen=True, eq=False)
class Source:
    """The inputs of the scores.

    Attributes:
        heldout: Target of ``harm``.
        features: ``(images of the set, d)`` of the model at ``params`` (:func:`features_of`); rows of images in no
            task are not used. None until they are computed.
        episodes_of: Returns the episodes of a task list on the device.
    """

    images: ImageSet
    model: Bilevel
    params: Params
    heldout: TaskList
    features: np.ndarray | None
    episodes_of: Callable[[TaskList], Episodes]

    def with_features(self, features: np.ndarray) -> Source:
        """Return the same inputs with features."""
        return replace(self, features=features)


@dataclass(frozen=True)
class ScoreSettings:
    """What to compute.

    Attributes:
        members: Of ``SLOW``, those to compute too.
        rounds: Of scoring tasks.
        seed: Of all that is random.
    """

    members: tuple[str, ...] = ()
    rounds: int = 4
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of n items.

    Attributes:
        scores: ``(n,)`` a column; what could not be computed of an item is the median.
        log_p: Log-probability of every class for every image of the claims by the classifiers, ``(images, classes)``.
        images: ``(images,)`` positions in the image set, sorted: the rows of ``log_p`` and ``placed``.
        placed: ``(images, d)``: in the metric of the discriminant.
        seconds: By stage.
    """

    scores: pd.DataFrame
    log_p: np.ndarray
    images: np.ndarray
    placed: np.ndarray
    seconds: dict[str, float] = field(default_factory=dict)


def features_of(
    images: ImageSet, model: Bilevel, params: Params, claims: ImageLabelPairs, progress: Progress
) -> np.ndarray:
    """Features of every image of the claims, at its place in the image set; zeros elsewhere."""
    some = np.unique(claims.image)
    progress.stage("what the model sees", len(some) * SHIFTS)
    found = image_features(model.network, params, images, some, progress.advance)
    every = np.zeros((len(images), found.shape[1]), np.float32)
    every[some] = found
    return every


def score_labels(
    source: Source, claims: ImageLabelPairs, tasks: TaskList, by_row: bool, settings: ScoreSettings, progress: Progress
) -> ScoreTable:
    """Scores of every item: of every claim, or with ``by_row`` of every row of ``tasks`` that makes one.

    Args:
        tasks: Tasks whose rows make these claims; without ``by_row`` not necessarily all of them.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    with timed("classifiers"):
        progress.stage("classifiers", 3)
        found = _classified(source, claims, progress)
    scores: dict[str, np.ndarray] = dict(found.scores)
    with timed("scoring tasks"):
        shape = shape_of(tasks)
        progress.stage("scoring tasks", settings.rounds * -(-len(claims) // (shape.ways * shape.queries)))
        seen = score_pairs(
            source.model,
            source.params,
            claims,
            shape,
            source.episodes_of,
            source.images.ids,
            rounds=settings.rounds,
            seed=settings.seed,
            on_chunk=progress.advance,
        )
    scores |= {"loss": seen.mean_loss, "margin": seen.mean_margin}
    if "cross_validated" in settings.members:
        with timed("cross-validation"):
            progress.stage("cross-validation", 5)
            scores["cross_validated"] = -np.maximum(
                cross_validated(source.images, claims, settings.seed, progress.advance), _FLOOR
            )
    table = pd.DataFrame(scores)
    rows = _row_scores(source, tasks, settings, progress, timed)
    of_row = _claim_of_row(claims, tasks, source.images)
    made = of_row >= 0
    if by_row:
        table = table.iloc[of_row[made]].reset_index(drop=True)
        table = pd.concat([table, rows[made].reset_index(drop=True)], axis=1)
        table["votes"] = 1 - claims.share[of_row[made]]
        table["others"] = _others(table["classifier"], tasks.rows["task_id"][made])
        # Of a row that is no query, or no support, its own task says the one thing that it can.
        own = table["task_loss"].fillna(table["support_loss"])
        table["task_loss"], table["support_loss"] = own, table["support_loss"].fillna(table["task_loss"])
    else:
        means = rows.drop(columns="task_loss")[made].groupby(of_row[made]).mean()
        table = pd.concat([table, means.reindex(range(len(claims)))], axis=1)
    table = table.fillna(table.median()).fillna(0.0)
    return ScoreTable(table, found.log_p, found.images, found.placed, seconds)


def _classified(source: Source, claims: ImageLabelPairs, progress: Progress) -> ScoreTable:
    main = np.flatnonzero(claims.main)
    main = main[np.argsort(claims.image[main])]
    images = claims.image[main]
    assert source.features is not None
    given = Labelled(source.features[images], claims.label[main], len(claims.classes), claims.share[main])
    one, placed = discriminant(given)
    progress.advance()
    two = kernel(given)
    progress.advance()
    near = neighbours(placed, given)
    progress.advance()
    both = _pooled(one, two, given)
    at = np.searchsorted(images, claims.image)
    scores = {
        name: -np.maximum(log_p[at, claims.label], _FLOOR)
        for name, log_p in (("classifier", both), ("discriminant", one), ("kernel", two))
    }
    # An image's neighbours speak of its main class alone; of its other classes the opposite.
    scores["neighbours"] = np.where(claims.main, near[at], -near[at])
    return ScoreTable(pd.DataFrame(scores), both, images, placed)


def _pooled(one: np.ndarray, two: np.ndarray, given: Labelled) -> np.ndarray:
    """The logarithmic pool of two classifiers that finds the given labels likeliest, wrong ones reckoned with."""

    def likelihood(weight: float) -> float:
        p = np.exp(log_softmax((1 - weight) * one[known] + weight * two[known], 1)[np.arange(len(known)), labels])
        return float(np.log(0.9 * p + 0.1 / given.classes).mean())

    known = np.flatnonzero(np.isfinite(one).all(1) & np.isfinite(two).all(1))
    labels = given.labels[known]
    found = minimize_scalar(lambda w: -likelihood(w), bounds=(0.0, 1.0), method="bounded", options={"xatol": 0.02})
    return log_softmax((1 - found.x) * one + found.x * two, 1)


def _row_scores(
    source: Source,
    tasks: TaskList,
    settings: ScoreSettings,
    progress: Progress,
    timed: Callable[[str], AbstractContextManager[None]],
) -> pd.DataFrame:
    """What own tasks say of the rows: one row a row of the task table."""
    episodes = source.episodes_of(tasks)
    table = pd.DataFrame(index=range(len(tasks.rows)))
    query = (tasks.rows["role"] == "query").to_numpy()
    with timed("own tasks"):
        progress.stage("own tasks", len(tasks))
        found = evaluate(source.model, source.params, episodes, progress.advance)
        table.loc[query, "task_loss"] = found.rows["loss"].to_numpy()
        table["support_loss"] = left_out_losses(source, tasks, progress)
    if "self_influence" in settings.members:
        with timed("self-influence"):
            table["self_influence"] = _gradient_norms(source, episodes, settings.seed, progress)
    if "harm" in settings.members:
        with timed("harm"):
            heldout = source.episodes_of(source.heldout)
            v, _ = target_gradient(source.model, source.params, heldout)
            progress.stage("harm", len(tasks))
            scored = instance_table(source.model, source.params, v, episodes, progress.advance)
            table["harm"] = -scored["score"].to_numpy()
    return table


def left_out_losses(source: Source, tasks: TaskList, progress: Progress) -> np.ndarray:
    """``(rows,)``: loss of every support row under its task adapted without it and one other row of every class;
    NaN for query rows, and where a class would have no support left."""
    rows = tasks.rows
    support = rows[(rows["role"] == "support") & (rows["weight"] > 0)]
    turn = support.groupby(["task_id", "label"], sort=False).cumcount().to_numpy()
    size = support.groupby(["task_id", "label"], sort=False)["weight"].transform("size").to_numpy()
    losses = np.full(len(rows), np.nan)
    least = pd.Series(size).groupby(support["task_id"].to_numpy(), sort=False).min()
    able = support["task_id"].map(least).to_numpy() > 1
    for number in range(int(turn.max()) + 1):
        out = able & (turn == number)
        if not out.any():
            continue
        here = support[able & np.isin(support["task_id"], support["task_id"][out])]
        gone = out[np.searchsorted(support.index, here.index)]
        split = here.assign(role=np.where(gone, "query", "support"))
        split = split.iloc[np.lexsort((gone, pd.factorize(split["task_id"])[0]))]
        found = evaluate(source.model, source.params, source.episodes_of(TaskList(split.reset_index(drop=True))))
        losses[split.index[split["role"] == "query"]] = found.rows["loss"].to_numpy()
        progress.advance(0)
    return losses


def _gradient_norms(source: Source, episodes: Episodes, seed: int, progress: Progress) -> np.ndarray:
    """``(rows,)``: ``E (g . r)^2`` over random r of independent unit variance (Hutchinson 1989), as a logarithm."""
    size = flatten(source.params)
    generator = torch.Generator().manual_seed(seed)
    progress.stage("self-influence", _DIRECTIONS * len(episodes))
    total = np.zeros(len(episodes.tasks.rows))
    for _ in range(_DIRECTIONS):
        direction: Tensor = torch.randn(size.shape, generator=generator, dtype=torch.float64).to(size)
        table = instance_table(source.model, source.params, direction, episodes, progress.advance)
        total += table["score"].to_numpy() ** 2
    return np.log(total / _DIRECTIONS + 1e-300)


def _claim_of_row(claims: ImageLabelPairs, tasks: TaskList, images: ImageSet) -> np.ndarray:
    """``(rows,)``: the claim that every row makes; -1 for none."""
    rows = tasks.rows
    code = {name: number for number, name in enumerate(claims.classes)}
    image = rows["image_id"].map(images.index).to_numpy()
    label = rows["class"].map(code).fillna(-1).to_numpy().astype(np.int64)
    known = pd.Series(np.arange(len(claims)), index=claims.image * len(claims.classes) + claims.label)
    found = known.reindex(image * len(claims.classes) + label).fillna(-1).to_numpy().astype(np.int64)
    return np.where((label >= 0) & (rows["weight"] > 0).to_numpy(), found, -1)


def _others(score: pd.Series, task_id: pd.Series) -> np.ndarray:
    groups = score.groupby(task_id.to_numpy(), sort=False)
    size = groups.transform("size")
    return ((groups.transform("sum") - score) / np.maximum(size - 1, 1)).to_numpy()
