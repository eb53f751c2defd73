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

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch.nn.functional as F
from scipy.special import log_softmax
from torch import Tensor
from torch.func import grad, jvp

from core.errors import UserError
from core.influence.vectors import unflatten
from core.maml.backbone import Params
from core.maml.episodes import Episodes, batched
from core.maml.objective import Bilevel, Task


def task_scores(model: Bilevel, params: Params, u: Params, task: Task) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores of one task's rows, and what the adapted model says of them.

    Returns:
        ``d phi / d s`` ``(S,)``, ``d phi / d q`` ``(Q,)``, and logits after adaptation ``(S, ways)``, ``(Q, ways)``.
    """

    def phi(weights: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        weighted = task._replace(s=weights[0], q=weights[1])

        def loss(p: Params) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            theta = model.adapt(p, weighted)
            query = model.network(theta, task.xq)
            losses = F.cross_entropy(query, task.yq, reduction="none")
            return (weighted.q * losses).mean(), (model.network(theta, task.xs), query)

        _, change, logits = jvp(loss, (params,), (u,), has_aux=True)
        return change, logits

    (by_s, by_q), (support, query) = grad(phi, has_aux=True)((task.s, task.q))
    return by_s, by_q, support, query


def instance_table(
    model: Bilevel,
    params: Params,
    u: Tensor,
    episodes: Episodes,
    on_chunk: Callable[[int], None] = lambda tasks: None,
    remember: Callable[[Callable[[], Sequence[np.ndarray]]], list[np.ndarray]] = lambda compute: list(compute()),
) -> pd.DataFrame:
    """Every row of the task table with its score and the adapted model's view of it.

    Args:
        u: ``(P,)``, the solution of the solve.
        remember: Keeps the arrays of a finished chunk, so that interrupted work goes on from there.

    Returns:
        task_id, role, image_id, label, class, weight, score, loss (nats, after adaptation), predicted (label),
        predicted_class, confidence (probability of ``label``); rows in the order of the task table.

    Raises:
        UserError: a score is not finite, or all are zero.
    """
    direction = unflatten(u, params)
    n = len(episodes.tasks.rows)
    score, loss, confidence = np.zeros(n), np.zeros(n), np.zeros(n)
    predicted, label = np.zeros(n, dtype=np.int64), episodes.tasks.rows["label"].to_numpy()

    def scores(p: Params, task: Task) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return task_scores(model, p, direction, task)

    function = batched(scores)
    for chunk in episodes.chunks():

        def compute(task: Task = chunk.task) -> list[np.ndarray]:
            return [value.cpu().numpy() for value in function(params, task)]

        by_s, by_q, support, query = remember(compute)
        rows_s, rows_q = episodes.rows(chunk.positions)
        for rows, by, logits in ((rows_s, by_s, support), (rows_q, by_q, query)):
            log_probability = log_softmax(logits.astype(np.float64), -1)
            own = np.take_along_axis(log_probability, label[rows][..., None], -1)[..., 0]
            score[rows], loss[rows], confidence[rows], predicted[rows] = by, -own, np.exp(own), logits.argmax(-1)
        on_chunk(len(chunk.positions))
    if not np.isfinite(score).all() or not score.any():
        what = "all zero" if np.isfinite(score).all() else "not finite"
        raise UserError(f"The scores are {what}; they would rank nothing.", "Raise the damping or check the model.")
    table = episodes.tasks.rows.assign(score=score, loss=loss, predicted=predicted, confidence=confidence)
    return table.assign(predicted_class=class_of(table, table))


def class_of(table: pd.DataFrame, predictions: pd.DataFrame) -> np.ndarray:
    """The classes that predicted labels stand for: ``predictions`` has task_id and predicted, ``table`` the tasks."""
    names = table.drop_duplicates(["task_id", "label"]).set_index(["task_id", "label"])["class"]
    return names.loc[list(zip(predictions["task_id"], predictions["predicted"], strict=True))].to_numpy()


def task_table(instances: pd.DataFrame) -> pd.DataFrame:
    """One row a task: score (the sum over its query rows, Thm 4.3), adapted loss and accuracy on its query rows."""
    query = instances[instances["role"] == "query"]
    query = query.assign(weighted=query["weight"] * query["score"], right=query["predicted"] == query["label"])
    grouped = query.groupby("task_id", sort=False)
    table = pd.DataFrame(
        {"score": grouped["weighted"].sum(), "loss": grouped["loss"].mean(), "accuracy": grouped["right"].mean()}
    )
    classes = instances.drop_duplicates(["task_id", "label"]).sort_values("label", kind="stable")
    table["classes"] = classes.groupby("task_id", sort=False)["class"].agg(list)
    return table.reset_index()


def image_table(instances: pd.DataFrame) -> pd.DataFrame:
    """One row an image: score (the sum over all its rows) and its parts, mean losses, and how often it occurs.

    Returns:
        image_id, class (as given most often), score, score_support, score_query, occurrences, loss (mean over its
        query rows; over its support rows if it never is a query), disagree (share of its rows predicted otherwise),
        predicted_class (predicted most often).
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
