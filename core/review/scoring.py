"""Sample tasks that score labels: every pair is a query once per round, each time with other support images.

Tasks are sampled from the given labels in the shape of the training tasks, so that the model adapts as it was trained
to. A support image has its most frequent class; after the first round, the most suspicious images of every class
are no longer used as support.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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

SUPPORT_SHARE = 0.8
"""Share of the images of a class that may be in the support set after the first round."""


@dataclass(frozen=True)
class TaskShape:
    """The number of classes per task, and of support and query images per class."""

    ways: int
    shots: int
    queries: int


def task_shape(tasks: TaskList) -> TaskShape:
    """Return the median shape of the tasks."""
    sizes = tasks.rows.groupby(["task_id", "role"], sort=False).size().unstack()
    support, query = (int(sizes[role].median()) for role in ("support", "query"))
    return TaskShape(tasks.ways, max(1, support // tasks.ways), max(1, query // tasks.ways))


class ScoringTasks(NamedTuple):
    """T scoring tasks: pairs ``(T, ways, shots)`` and ``(T, ways, queries)``; axis 1 is the label in the task."""

    support: np.ndarray
    query: np.ndarray


def draw_round(
    pairs: ImageLabelPairs, shape: TaskShape, suspicion: np.ndarray | None, rng: np.random.Generator
) -> ScoringTasks:
    """Sample one round: tasks in which every pair is a query at least once.

    ``suspicion`` ``(n,)`` is larger for more suspicious pairs, and None in the first round.

    Raises:
        UserError: fewer classes with two images than classes per task.
    """
    pools = _support_pools(pairs, shape, suspicion)
    members = [np.flatnonzero(pairs.label == label) for label in range(len(pairs.classes))]
    usable = [label for label, pool in enumerate(pools) if len(pool) > 1]
    if len(usable) < shape.ways:
        raise UserError(
            f"Only {len(usable)} classes have two images or more, but a task needs {shape.ways}.",
            "A label can only be scored if its class has other images to compare with.",
        )
    batches = {label: _query_batches(members[label], shape.queries, rng) for label in usable}
    support, query = [], []
    while any(batches.values()):
        labels = sorted(usable, key=lambda label: (-len(batches[label]), rng.random()))[: shape.ways]
        queries = [
            batches[label].pop() if batches[label] else _choice(members[label], shape.queries, rng) for label in labels
        ]
        query.append(np.stack(queries))
        per_class = zip(labels, queries, strict=True)
        support.append(np.stack([_support_pairs(pools[label], q, shape.shots, pairs, rng) for label, q in per_class]))
    return ScoringTasks(np.stack(support), np.stack(query))


def tasks_per_round(pairs: ImageLabelPairs, shape: TaskShape) -> int:
    """Return the number of tasks that every call of :func:`draw_round` samples."""
    usable = [label for label, pool in enumerate(_support_pools(pairs, shape, None)) if len(pool) > 1]
    batches = [-(-np.sum(pairs.label == label) // shape.queries) for label in usable]
    return int(max([*batches, -(-sum(batches) // shape.ways)]))


def _support_pools(pairs: ImageLabelPairs, shape: TaskShape, suspicion: np.ndarray | None) -> list[np.ndarray]:
    pools = []
    for label in range(len(pairs.classes)):
        pool = np.flatnonzero((pairs.label == label) & pairs.is_main)
        if suspicion is not None:
            minimum = min(len(pool), shape.shots + 1)
            pool = pool[np.argsort(suspicion[pool], kind="stable")[: max(minimum, round(SUPPORT_SHARE * len(pool)))]]
        pools.append(pool)
    return pools


def _query_batches(members: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the members in random batches of ``size``; the last one is filled with random members."""
    order = rng.permutation(members)
    order = np.r_[order, rng.choice(members, -len(order) % size)]
    return list(order.reshape(-1, size))


def _choice(pool: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(pool, size, replace=len(pool) < size)


def _support_pairs(
    pool: np.ndarray, query: np.ndarray, shots: int, pairs: ImageLabelPairs, rng: np.random.Generator
) -> np.ndarray:
    """Return support pairs of other images than the queries', if there are any."""
    others = pool[~np.isin(pairs.image[pool], pairs.image[query])]
    return _choice(others if len(others) else pool, shots, rng)


def task_list(sampled: ScoringTasks, pairs: ImageLabelPairs, image_ids: np.ndarray) -> TaskList:
    """Return scoring tasks as a task list; unlike elsewhere, an image may occur several times in one task."""
    (tasks, ways, shots), queries = sampled.support.shape, sampled.query.shape[2]
    flat = np.concatenate([sampled.support.reshape(tasks, -1), sampled.query.reshape(tasks, -1)], 1).ravel()
    labels = np.r_[np.repeat(np.arange(ways), shots), np.repeat(np.arange(ways), queries)]
    rows = {
        "task_id": np.repeat([f"s{number}" for number in range(tasks)], ways * (shots + queries)),
        "role": np.tile(np.repeat(["support", "query"], [ways * shots, ways * queries]), tasks),
        "image_id": image_ids[pairs.image[flat]],
        "label": np.tile(labels, tasks),
        "class": np.array(pairs.classes, dtype=object)[pairs.label[flat]],
        "weight": np.ones(len(flat)),
    }
    return TaskList(pd.DataFrame(rows))


def score_pairs(
    model: Bilevel,
    params: Params,
    pairs: ImageLabelPairs,
    shape: TaskShape,
    episodes_of: Callable[[TaskList], Episodes],
    image_ids: np.ndarray,
    *,
    rounds: int,
    seed: int,
    on_chunk: OnChunk = no_progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Score every pair in ``rounds`` rounds of scoring tasks; ``image_ids`` are those of the whole image set.

    Returns:
        ``(n,)`` each: the mean cross-entropy of the pair as a query, in nats, and the mean negative margin, which is
        the largest logit of another class minus that of the given class. Larger is more suspicious.
    """
    rng = np.random.default_rng(seed)
    passes = passes_of(model)
    loss, negative_margin, times = np.zeros((3, len(pairs)))
    for number in range(rounds):
        sampled = draw_round(pairs, shape, loss / np.maximum(times, 1) if number else None, rng)
        episodes = episodes_of(task_list(sampled, pairs, image_ids))

        def of_chunk(chunk: Chunk) -> list[Tensor]:
            with torch.no_grad():
                logits, labels = passes.query_logits(params, chunk.task), chunk.task.yq[..., None]
                own_logit = logits.gather(-1, labels)[..., 0]
                largest_other = logits.scatter(-1, labels, -torch.inf).amax(-1)
                return [torch.logsumexp(logits, -1) - own_logit, largest_other - own_logit]

        for positions, (losses, gaps) in episodes.collect_chunks(of_chunk, on_chunk=on_chunk):
            queried = sampled.query[positions].reshape(-1)
            np.add.at(loss, queried, losses.reshape(-1))
            np.add.at(negative_margin, queried, gaps.reshape(-1))
            np.add.at(times, queried, 1)
    return loss / np.maximum(times, 1), negative_margin / np.maximum(times, 1)
