"""Evaluate a model on held-out tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax, stdtrit
from torch import Tensor

from core.maml.backbone import Params
from core.maml.episodes import Chunk, Episodes, OnChunk, no_progress
from core.maml.objective import Bilevel
from core.maml.passes import passes_of


@dataclass(frozen=True)
class Interval:
    """A mean over tasks with its 95 % confidence interval (Student's t, with tasks as the sample)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Interval:
        """Return the interval of the mean of ``values``; its width is 0 for a single value."""
        array = np.asarray(values, dtype=np.float64)
        mean = float(array.mean())
        if len(array) < 2:
            return cls(mean, mean, mean)
        half = float(stdtrit(len(array) - 1, 0.975) * array.std(ddof=1) / len(array) ** 0.5)
        return cls(mean, mean - half, mean + half)

    def text(self, form: str) -> str:
        """Return ``0.850 [0.840, 0.860]`` for ``form=".3f"``."""
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"

    def percent(self, sign: str = "", unit: str = " %") -> str:
        """Return ``93.1 % [92.0, 94.2]`` for an interval of shares; ``sign="+"`` for differences."""
        mean, low, high = (100 * value for value in (self.mean, self.low, self.high))
        return f"{mean:{sign}.1f}{unit} [{low:{sign}.1f}, {high:{sign}.1f}]"


@dataclass(frozen=True)
class Evaluation:
    """A set of predictions and metrics on the query images after adaptation.

    Attributes:
        rows: One row per query row of the task list: task_id, image_id, label, class, loss (nats), predicted (label),
            confidence (probability of ``label``).
        accuracy, loss: Accuracy and mean loss (nats) per task, ``(T,)``, in the order of the task list.
    """

    rows: pd.DataFrame
    accuracy: np.ndarray
    loss: np.ndarray

    @property
    def mean_accuracy(self) -> Interval:
        """Return the mean accuracy over tasks with its interval."""
        return Interval.of(self.accuracy)

    @property
    def mean_loss(self) -> Interval:
        """Return the mean loss over tasks, in nats, with its interval."""
        return Interval.of(self.loss)

    def __repr__(self) -> str:
        accuracy, loss = self.mean_accuracy.mean, self.mean_loss.mean
        return f"Evaluation({len(self.accuracy)} tasks: mean accuracy {accuracy:.1%}, mean loss {loss:.3f} nats)"

    def summary(self) -> dict[str, Any]:
        """Return the figures of a run's JSON file: accuracy and loss with their intervals, and the number of tasks."""
        return {"accuracy": asdict(self.mean_accuracy), "loss": asdict(self.mean_loss), "tasks": len(self.accuracy)}

    def heldout_table(self, task_ids: list[str]) -> pd.DataFrame:
        """Return one row per task: task_id, accuracy, loss."""
        return pd.DataFrame({"task_id": task_ids, "accuracy": self.accuracy, "loss": self.loss})


def evaluate(model: Bilevel, params: Params, episodes: Episodes, on_chunk: OnChunk = no_progress) -> Evaluation:
    """Adapt to the support set of every task and evaluate on its query set, with equal weight for every query row."""
    table = episodes.tasks.rows
    label = table["label"].to_numpy()
    loss, predicted = np.zeros(len(table)), np.zeros(len(table), dtype=np.int64)
    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        return [passes.query_logits(params, chunk.task)]

    for positions, (logits,) in episodes.collect_chunks(of_chunk, on_chunk=on_chunk):
        _, rows = episodes.rows(positions)
        log_probability = log_softmax(logits.astype(np.float64), -1)
        loss[rows] = -np.take_along_axis(log_probability, label[rows][..., None], -1)[..., 0]
        predicted[rows] = logits.argmax(-1)
    query = (table["role"] == "query").to_numpy()
    predictions = table.loc[query, ["task_id", "image_id", "label", "class"]]
    predictions = predictions.assign(loss=loss[query], predicted=predicted[query], confidence=np.exp(-loss[query]))
    is_correct = predictions["predicted"] == predictions["label"]
    accuracy = is_correct.groupby(predictions["task_id"], sort=False).mean()
    mean_loss = predictions.groupby("task_id", sort=False)["loss"].mean()
    return Evaluation(predictions.reset_index(drop=True), accuracy.to_numpy(), mean_loss.to_numpy())
