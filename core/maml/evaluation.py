"""How good a model is on held-out tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from core.maml.backbone import Params
from core.maml.episodes import Episodes, batched
from core.maml.objective import Bilevel, Task


@dataclass(frozen=True)
class Interval:
    """A mean over tasks with its 95 % confidence interval (Student's t; tasks are the sample)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Interval:
        """The interval of the mean of ``values``; of no width where there is only one."""
        array = np.asarray(values, dtype=np.float64)
        mean = float(array.mean())
        if len(array) < 2:
            return cls(mean, mean, mean)
        half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Evaluation:
    """Query accuracy (share, in [0, 1]) and query loss (nats) after adaptation, task by task.

    Attributes:
        accuracy, loss: ``(T,)`` in the order of the task list.
    """

    accuracy: np.ndarray
    loss: np.ndarray

    @property
    def mean_accuracy(self) -> Interval:
        return Interval.of(self.accuracy)

    @property
    def mean_loss(self) -> Interval:
        return Interval.of(self.loss)


def evaluate(
    model: Bilevel, params: Params, episodes: Episodes, on_chunk: Callable[[int], None] = lambda tasks: None
) -> Evaluation:
    """Adapt to every task's support set and measure on its query set."""

    def measure(p: Params, task: Task) -> tuple[Tensor, Tensor]:
        logits = model.query_logits(p, task)
        return (logits.argmax(-1) == task.yq).double().mean(), F.cross_entropy(logits, task.yq)

    accuracy, loss = np.zeros(len(episodes)), np.zeros(len(episodes))
    function = batched(measure)
    for chunk in episodes.chunks():
        a, b = function(params, chunk.task)
        accuracy[chunk.positions], loss[chunk.positions] = a.cpu().numpy(), b.cpu().double().numpy()
        on_chunk(len(chunk.positions))
    return Evaluation(accuracy, loss)
