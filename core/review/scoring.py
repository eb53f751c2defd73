"""Tasks made only for scoring: every claim is a query once a round, each time with fresh support images.

They are drawn from the labels as given, in the shape of the training tasks, so that the model adapts as it was trained
to. Support images stand for the class that most of their rows give them; once a first round has said which of them look
wrong, the most suspicious of every class stand for nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.maml.backbone import Params
from core.maml.episodes import Chunk, Episodes, OnChunk, no_progress
from core.maml.objective import Bilevel
from core.maml.passes import passes_of
from core.review.image_labels import ImageLabelPairs
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList

_TRUSTED = 0.8
"""Share of the images of a class that may stand in the support set after the first round."""


@dataclass(frozen=True)
class Shape:
    """Classes a task, support images and query images a class."""

    ways: int
    shots: int
    queries: int


def shape_of(tasks: TaskList) -> Shape:
    """The usual shape of the tasks."""
    sizes = tasks.rows.groupby(["task_id", "role"], sort=False).size().unstack()
    support, query = (int(sizes[role].median()) for role in ("support", "query"))
    return Shape(tasks.ways, max(1, support // tasks.ways), max(1, query // tasks.ways))


@dataclass(frozen=True, eq=False)
class Drawn:
    """Scoring tasks: claims ``(T, ways, shots)`` and ``(T, ways, queries)``, label k at place k of the second axis."""

    support: np.ndarray
    query: np.ndarray


def draw_round(claims: ImageLabelPairs, shape: Shape, suspicion: np.ndarray | None, rng: np.random.Generator) -> Drawn:
    """One round: tasks in which every claim is a query at least once.

    Args:
        suspicion: ``(n,)``, larger is worse; None where nothing is known yet.

    Raises:
        UserError: fewer classes than ways, or classes too small to have a support image beside a query.
    """
    pools = _pools(claims, shape, suspicion)
    members = [np.flatnonzero(claims.label == label) for label in range(len(claims.classes))]
    usable = [label for label, pool in enumerate(pools) if len(pool) > 1]
    if len(usable) < shape.ways:
        raise UserError(
            f"Only {len(usable)} classes have two images or more, and tasks have {shape.ways}.",
            "Labels can only be rated where a class has other images to compare with.",
        )
    batches = {label: _batches(members[label], shape.queries, rng) for label in usable}
    support, query = [], []
    while any(batches.values()):
        left = sorted(usable, key=lambda label: (-len(batches[label]), rng.random()))[: shape.ways]
        chosen = [batches[label].pop() if batches[label] else _again(members[label], shape, rng) for label in left]
        query.append(np.stack(chosen))
        support.append(
            np.stack([_support(pools[at], q, shape.shots, claims, rng) for at, q in zip(left, chosen, strict=True)])
        )
    return Drawn(np.stack(support), np.stack(query))


def _pools(claims: ImageLabelPairs, shape: Shape, suspicion: np.ndarray | None) -> list[np.ndarray]:
    pools = []
    for label in range(len(claims.classes)):
        pool = np.flatnonzero((claims.label == label) & claims.main)
        if suspicion is not None:
            least = min(len(pool), shape.shots + 1)
            pool = pool[np.argsort(suspicion[pool], kind="stable")[: max(least, round(_TRUSTED * len(pool)))]]
        pools.append(pool)
    return pools


def _batches(members: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The members in batches of ``size``; the last is filled up with members of others."""
    order = rng.permutation(members)
    order = np.r_[order, rng.choice(members, -len(order) % size)]
    return list(order.reshape(-1, size))


def _again(members: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(members, shape.queries, replace=len(members) < shape.queries)


def _support(
    pool: np.ndarray, query: np.ndarray, shots: int, claims: ImageLabelPairs, rng: np.random.Generator
) -> np.ndarray:
    """Support claims of other images than the query's, where there are enough."""
    others = pool[~np.isin(claims.image[pool], claims.image[query])]
    if not len(others):
        others = pool
    return rng.choice(others, shots, replace=len(others) < shots)


def task_list(drawn: Drawn, claims: ImageLabelPairs, image_ids: np.ndarray) -> TaskList:
    """The drawn tasks as a task list; the same image may occur several times in one, which ordinary lists forbid."""
    both = np.concatenate([drawn.support, drawn.query], 2)
    tasks, ways, each = both.shape
    shots = drawn.support.shape[2]
    flat = np.concatenate([drawn.support.reshape(tasks, -1), drawn.query.reshape(tasks, -1)], 1).ravel()
    labels = np.r_[np.repeat(np.arange(ways), shots), np.repeat(np.arange(ways), each - shots)]
    rows = {
        "task_id": np.repeat([f"s{number}" for number in range(tasks)], ways * each),
        "role": np.tile(np.repeat(["support", "query"], [ways * shots, ways * (each - shots)]), tasks),
        "image_id": image_ids[claims.image[flat]],
        "label": np.tile(labels, tasks),
        "class": np.array(claims.classes, dtype=object)[claims.label[flat]],
        "weight": np.ones(len(flat)),
    }
    return TaskList(pd.DataFrame(rows))


@dataclass(frozen=True, eq=False)
class QueryStats:
    """What adapted models say of every claim, summed over the times it was a query: all ``(n,)``.

    ``loss`` in nats; ``margin`` the largest logit of another class less the own; ``times`` how often.
    """

    loss: np.ndarray
    margin: np.ndarray
    times: np.ndarray

    def __add__(self, other: QueryStats) -> QueryStats:
        return QueryStats(self.loss + other.loss, self.margin + other.margin, self.times + other.times)

    @property
    def mean_loss(self) -> np.ndarray:
        return self.loss / np.maximum(self.times, 1)

    @property
    def mean_margin(self) -> np.ndarray:
        return self.margin / np.maximum(self.times, 1)


def score_pairs(
    model: Bilevel,
    params: Params,
    claims: ImageLabelPairs,
    shape: Shape,
    episodes_of: Callable[[TaskList], Episodes],
    image_ids: np.ndarray,
    *,
    rounds: int,
    seed: int,
    on_chunk: OnChunk = no_progress,
) -> QueryStats:
    """Rate every claim in ``rounds`` rounds of scoring tasks.

    Args:
        episodes_of: Makes a task list computable.
        image_ids: Of the whole image set.
    """
    rng = np.random.default_rng(seed)
    passes = passes_of(model)
    seen: QueryStats | None = None
    for _ in range(rounds):
        drawn = draw_round(claims, shape, None if seen is None else seen.mean_loss, rng)
        episodes = episodes_of(task_list(drawn, claims, image_ids))

        def of_chunk(chunk: Chunk) -> list[Tensor]:
            with torch.no_grad():
                return _rated(passes.query_logits(params, chunk.task), chunk.task.yq)

        loss, margin, times = (np.zeros(len(claims)) for _ in range(3))
        for at, (losses, margins) in episodes.collected(of_chunk, on_chunk=on_chunk):
            which = drawn.query[at].reshape(-1)
            np.add.at(loss, which, losses.reshape(-1))
            np.add.at(margin, which, margins.reshape(-1))
            np.add.at(times, which, 1)
        this = QueryStats(loss, margin, times)
        seen = this if seen is None else seen + this
    assert seen is not None
    return seen


def _rated(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """Loss and margin of queries, ``(T, Q)`` each."""
    own = logits.gather(-1, labels[..., None])
    loss = torch.logsumexp(logits, -1) - own[..., 0]
    others = logits.scatter(-1, labels[..., None], -torch.inf).amax(-1)
    return [loss, others - own[..., 0]]
