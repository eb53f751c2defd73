"""Difficulty of the training tasks for the adapted model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from core.influence.scores import prediction_stats
from core.maml.episodes import Chunk
from core.maml.loaded import Loaded
from core.maml.passes import passes_of
from core.runtime.progress import Progress


class Difficulty(NamedTuple):
    """Means over every task's query rows, ``(N,)`` each, in nats; the margin is that of the given label."""

    loss: np.ndarray
    entropy: np.ndarray
    margin: np.ndarray


def task_difficulty(loaded: Loaded, progress: Progress) -> Difficulty:
    """Return mean adapted loss, predictive entropy and margin of every training task's query rows."""
    means = np.zeros((3, len(loaded.train)))
    passes = passes_of(loaded.model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        return [passes.query_logits(loaded.params, chunk.task), chunk.task.yq]

    for positions, (logits, labels) in loaded.train.collect_chunks(of_chunk, on_chunk=progress.advance):
        stats = prediction_stats(logits, labels)
        means[:, positions] = stats.loss.mean(-1), stats.entropy.mean(-1), stats.margin.mean(-1)
    return Difficulty(*means)
