"""Small problems for tests: real digits, shrunk so far that every matrix can be built."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from core.data import ImageSet, load_images
from core.maml.adaptation import Unrolled
from core.maml.backbone import ConvNet, Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel
from core.tasks.sampling import pool_of, sample_tasks
from core.tasks.tasklist import TaskList


@cache
def tiny_images(side: int = 7, per_class: int = 20, classes: int = 4) -> ImageSet:
    """Digits 0 to ``classes - 1``, averaged down to ``side`` x ``side``."""
    full = load_images("mnist5k")
    keep = np.concatenate([np.flatnonzero(full.labels == c)[:per_class] for c in range(classes)])
    step = 28 // side
    small = full.images[keep].reshape(len(keep), side, step, side, step, 1).mean((2, 4)).astype(np.uint8)
    return ImageSet("tiny", small, full.labels[keep], full.class_names[:classes], full.ids[keep])


def tiny_tasks(images: ImageSet, *, ways: int, shots: int, queries: int, count: int, seed: int = 0) -> TaskList:
    rng = np.random.default_rng(seed)
    pool = pool_of(images.labels, np.arange(len(images)))
    return sample_tasks(images, pool, ways=ways, shots=shots, queries=queries, count=count, prefix="t", rng=rng)


def with_weights(episodes: Episodes, weights: np.ndarray) -> Episodes:
    """The same tasks with other weights, ``(rows of the table,)``."""
    other = copy(episodes)
    other.tasks = TaskList(episodes.tasks.rows.assign(weight=weights))
    other._groups = [replace(group, weights=weights[group.rows]) for group in episodes._groups]
    return other


@dataclass(frozen=True)
class Problem:
    images: ImageSet
    tasks: TaskList
    model: Bilevel
    params: Params
    episodes: Episodes


def tiny_problem(
    *,
    ways: int = 3,
    shots: int = 2,
    queries: int = 2,
    count: int = 4,
    steps: int = 1,
    pooling: str = "stride",
    activation: str = "gelu",
    algorithm: str = "maml",
) -> Problem:
    """A float64 problem whose model has fewer than 100 parameters."""
    images = tiny_images()
    tasks = tiny_tasks(images, ways=ways, shots=shots, queries=queries, count=count)
    network = ConvNet(ways, filters=2, shape=(7, 7, 1), pooling=pooling, blocks=2, activation=activation)
    adaptation = Unrolled(steps, 0.3, "head" if algorithm == "anil" else "all", algorithm == "meta-sgd")
    params = network.init(3, torch.float64)
    params |= adaptation.rates(params)
    # Biases of the normalisation start at 0, where ReLU has its kink for half of the units by symmetry; move away.
    generator = torch.Generator().manual_seed(5)
    params = {k: v + 0.3 * torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in params.items()}
    model = Bilevel(network, adaptation, delta=0.2, first_order=algorithm == "fomaml")
    return Problem(images, tasks, model, params, Episodes(tasks, images, dtype=torch.float64, chunk=3))
