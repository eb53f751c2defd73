"""Scores of all tasks and all instances in one pass.

With ``u = (C + (delta + damping) I)^-1 v`` and v the gradient of the target's loss, let
``phi_k(s, q) = d/de L_O^k(lambda + e u; s, q)`` at e = 0, one forward-mode product through the adaptation. Then,
to first order in the weights, the target's loss rises

- by ``phi_k`` when task k is removed (task-IF, Thm 4.3),
- by ``d phi_k / d q_z`` when its query row z is removed (instance-IF, Thm 4.5),
- by ``d phi_k / d s_z`` when its support row z is removed (instance-IF, Thm 4.6 to Prop. 4.8).

**Positive is helpful, negative is harmful**, everywhere. Removing an image removes all its rows, so its score is
the sum of theirs. No gradient of a single instance is ever formed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from torch import Tensor

from core.maml.backbone import Params
from core.maml.episodes import Chunk, ChunkCache, Episodes, OnChunk, no_progress
from core.maml.loaded import Loaded
from core.maml.objective import Bilevel
from core.maml.passes import RowScores, passes_of
from core.maml.vectors import unflatten
from core.runtime.errors import UserError
from core.runtime.progress import Progress

NOT_FINITE, ALL_ZERO = "not finite", "all zero"


class ScoresError(UserError):
    """An error for scores that cannot rank; ``fault`` is :data:`NOT_FINITE` or :data:`ALL_ZERO`."""

    def __init__(self, fault: str, fix: str, name: str) -> None:
        super().__init__(f"The {name + ' ' if name else ''}scores are {fault}, so they do not define a ranking.", fix)
        self.fault = fault


def instance_table(
    model: Bilevel,
    params: Params,
    u: Tensor,
    episodes: Episodes,
    on_chunk: OnChunk = no_progress,
    memory: ChunkCache | None = None,
) -> pd.DataFrame:
    """Return every row of the task table with its score and the adapted model's prediction.

    Args:
        u: ``(P,)``, the solution of the solve.
        memory: Stores the results of finished chunks, so that an interrupted pass resumes.

    Returns:
        task_id, role, image_id, label, class, weight, score, effect (P of a support row, NaN for query rows), loss
        (nats, after adaptation), margin (log-odds of ``label`` against the best other), entropy (nats, of the
        prediction), predicted (label), predicted_class, confidence (probability of ``label``); rows in the order of
        the task table.

    Raises:
        ScoresError: a score is not finite, or all are zero.
    """
    direction = unflatten(u, params)
    n = len(episodes.tasks.rows)
    label = episodes.tasks.rows["label"].to_numpy()
    columns = {name: np.full(n, np.nan) for name in ("score", "effect", "loss", "margin", "entropy")}
    predicted = np.zeros(n, dtype=np.int64)

    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> RowScores:
        return passes.row_scores(params, direction, chunk.task)

    for positions, arrays in episodes.collect_chunks(of_chunk, on_chunk=on_chunk, memory=memory):
        by_s, by_q, effect, support, query = arrays
        rows_s, rows_q = episodes.rows(positions)
        columns["effect"][rows_s] = effect
        for rows, by, logits in ((rows_s, by_s, support), (rows_q, by_q, query)):
            columns["score"][rows] = by
            stats = prediction_stats(logits, label[rows])
            columns["loss"][rows], columns["margin"][rows], columns["entropy"][rows], predicted[rows] = stats
    check_scores(columns["score"])
    table = episodes.tasks.rows.assign(**columns, predicted=predicted, confidence=np.exp(-columns["loss"]))
    return table.assign(predicted_class=class_of(table, table))


class PredictionStats(NamedTuple):
    """Cross-entropy of the given label, margin and entropy (nats), and the label with the largest logit.

    The margin is the log-probability of the given label minus that of the best other: positive = the given label wins.
    """

    loss: np.ndarray
    margin: np.ndarray
    entropy: np.ndarray
    predicted: np.ndarray


def prediction_stats(logits: np.ndarray, label: np.ndarray) -> PredictionStats:
    """Return statistics of predictions from logits ``(..., ways)`` and given labels ``(...)``."""
    log_probability = log_softmax(logits.astype(np.float64), -1)
    given = np.take_along_axis(log_probability, label[..., None], -1)[..., 0]
    others = log_probability.copy()
    np.put_along_axis(others, label[..., None], -np.inf, -1)
    entropy = -(np.exp(log_probability) * log_probability).sum(-1)
    return PredictionStats(-given, given - others.max(-1), entropy, logits.argmax(-1))


class Difficulty(NamedTuple):
    """Means over every task's query rows, ``(N,)`` each, in nats; the margin is that of the given label."""

    loss: np.ndarray
    entropy: np.ndarray
    margin: np.ndarray


def task_difficulty(loaded: Loaded, progress: Progress) -> Difficulty:
    """Return the means after adaptation over the query rows of every training task."""
    means = np.zeros((3, len(loaded.train)))
    passes = passes_of(loaded.model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        return [passes.query_logits(loaded.params, chunk.task), chunk.task.yq]

    for positions, (logits, labels) in loaded.train.collect_chunks(of_chunk, on_chunk=progress.advance):
        stats = prediction_stats(logits, labels)
        means[:, positions] = stats.loss.mean(-1), stats.entropy.mean(-1), stats.margin.mean(-1)
    return Difficulty(*means)


def check_scores(scores: np.ndarray, fix: str = "Raise the damping or check the model.", name: str = "") -> None:
    """Raise ScoresError if scores are not finite or all zero."""
    if not np.isfinite(scores).all():
        raise ScoresError(NOT_FINITE, fix, name)
    if not scores.any():
        raise ScoresError(ALL_ZERO, fix, name)


def class_of(table: pd.DataFrame, predictions: pd.DataFrame) -> np.ndarray:
    """Return the classes of predicted labels: ``predictions`` has task_id and predicted, ``table`` the tasks."""
    names = table.drop_duplicates(["task_id", "label"]).set_index(["task_id", "label"])["class"]
    return names.loc[list(zip(predictions["task_id"], predictions["predicted"], strict=True))].to_numpy()


def task_table(instances: pd.DataFrame) -> pd.DataFrame:
    """Return one row per task: score (summed over its query rows, Thm 4.3), adapted loss and accuracy on them."""
    query = instances[instances["role"] == "query"]
    query = query.assign(weighted=query["weight"] * query["score"], correct=query["predicted"] == query["label"])
    grouped = query.groupby("task_id", sort=False)
    table = pd.DataFrame(
        {"score": grouped["weighted"].sum(), "loss": grouped["loss"].mean(), "accuracy": grouped["correct"].mean()}
    )
    classes = instances.drop_duplicates(["task_id", "label"]).sort_values("label", kind="stable")
    table["classes"] = classes.groupby("task_id", sort=False)["class"].agg(list)
    return table.reset_index()


def image_table(instances: pd.DataFrame) -> pd.DataFrame:
    """Return one row per image: score (summed over all its rows) and its parts, mean losses, and occurrences.

    Returns:
        image_id, class (given most often), score, score_support, score_query, occurrences, loss (mean over its
        query rows; over its support rows if it is never a query), disagree (share of its rows with another
        prediction), predicted_class (predicted most often).
    """
    weighted = instances["score"] * instances["weight"]
    support = (instances["role"] == "support").to_numpy()
    parts = instances.assign(
        score=weighted,
        score_support=weighted.where(support, 0.0),
        score_query=weighted.where(~support, 0.0),
        support_loss=instances["loss"].where(support),
        query_loss=instances["loss"].where(~support),
        disagree=(instances["predicted"] != instances["label"]).astype(float),
    )
    grouped = parts.groupby("image_id", sort=True)
    table = grouped[["score", "score_support", "score_query"]].sum()
    table["occurrences"] = grouped.size()
    table["loss"] = grouped["query_loss"].mean().fillna(grouped["support_loss"].mean())
    table["disagree"] = grouped["disagree"].mean()
    for column in ("class", "predicted_class"):
        counts = parts.groupby(["image_id", column], sort=True).size().rename("n").reset_index()
        most = counts.sort_values(["image_id", "n"], ascending=[True, False], kind="stable")
        table[column] = most.drop_duplicates("image_id").set_index("image_id")[column]
    return table.reset_index()
