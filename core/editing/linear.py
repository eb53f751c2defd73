"""The linear edit: lambda minus the sum of the influence functions of what changes (paper, section 5.2).

What is removed counts to first order in its weights. A label has no weight, and another label of a support row is twice
the step that its removal is: of a task with relabelled rows the whole change of its gradient is taken, exactly, so that
the edit is there one Newton step towards the changed objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.influence.solvers import Product, Solution, conjugate_gradients
from core.maml.backbone import Params
from core.maml.episodes import Chunk, Episodes, OnChunk, no_progress
from core.maml.objective import Bilevel
from core.maml.passes import Passes, passes_of
from core.maml.vectors import flatten, unflatten


@dataclass(frozen=True)
class RowChange:
    """What happens to every row of the task table, ``(rows,)`` each.

    Attributes:
        lost: Weight that it loses; nothing for support rows of tasks that leave.
        weights, labels: After the change.
        moved: Whether it has another label and still counts.
    """

    lost: np.ndarray
    weights: np.ndarray
    labels: np.ndarray
    moved: np.ndarray


def row_change(episodes: Episodes, weights: np.ndarray, labels: np.ndarray | None = None) -> RowChange:
    """What changes when the task table gets other ``weights`` and ``labels`` (None: the same), ``(rows,)``."""
    rows = episodes.tasks.rows
    query = rows["role"] == "query"
    alive = rows["task_id"].isin(rows.loc[query & (weights > 0), "task_id"]).to_numpy()
    have = rows["label"].to_numpy()
    new = have if labels is None else labels
    lost = np.where(query | alive, rows["weight"].to_numpy() - weights, 0.0)
    return RowChange(lost, weights, new, (new != have) & (weights > 0) & alive)


def touched_tasks(episodes: Episodes, change: RowChange) -> np.ndarray:
    """Positions of the tasks that anything changes in."""
    return _positions(episodes, (change.lost != 0) | change.moved)


def _positions(episodes: Episodes, rows: np.ndarray) -> np.ndarray:
    """Positions of the tasks of the marked rows."""
    touched = set(episodes.tasks.rows.loc[rows, "task_id"])
    return np.array([i for i, task_id in enumerate(episodes.tasks.task_ids) if task_id in touched], dtype=np.int64)


def change_gradient(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    weights: np.ndarray,
    labels: np.ndarray | None = None,
    on_chunk: OnChunk = no_progress,
) -> Tensor:
    """Sum of the gradients whose influence functions a change adds up, ``(P,)``.

    For a query row that leaves it is D_lambda of its share of the loss (Thm 4.5), for a support row D_lambda d L_O /
    d s_z (Prop. 4.8 with the sign of the appendix). A task that loses all its query rows leaves the objective: only its
    total gradient counts (Thm 4.3), its support rows do not. For a task with relabelled rows it is its total gradient
    before less that after, all its changes included.

    Args:
        weights: ``(rows of the task table,)`` after the change.
        labels: The same of labels; None changes none.
    """
    change = row_change(episodes, weights, labels)
    relabelled = _positions(episodes, change.moved)
    others = np.setdiff1d(touched_tasks(episodes, change), relabelled)
    passes, total = passes_of(model), torch.zeros_like(flatten(params))

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        found = chunk_gradients(passes, params, chunk, episodes.rows(chunk.positions), change)
        return [flatten({name: value.sum(0) for name, value in found.items()})]

    for positions in (others, relabelled):
        if len(positions):
            total = total + episodes.summed(of_chunk, positions, on_chunk)[0]
    return total


def chunk_gradients(
    passes: Passes, params: Params, chunk: Chunk, rows: tuple[np.ndarray, np.ndarray], change: RowChange
) -> Params:
    """:func:`change_gradient` of every task of a chunk, ``(T, ...)``; all of them have relabelled rows, or none.

    Args:
        rows: Rows of the task table that belong to its tasks, support ``(T, S)`` and query ``(T, Q)``.
    """
    task = chunk.task
    if not any(change.moved[part].any() for part in rows):
        s, q = (torch.from_numpy(change.lost[part]).to(task.s) for part in rows)
        return passes.weight_change_gradients(params, task, task._replace(s=s, q=q))
    before, _ = passes.gradients(params, task)
    after = changed_gradients(passes, params, chunk, rows, change)
    return {name: value - after[name] for name, value in before.items()}


def changed_gradients(
    passes: Passes, params: Params, chunk: Chunk, rows: tuple[np.ndarray, np.ndarray], change: RowChange
) -> Params:
    """Total gradients of the tasks of a chunk after the change, ``(T, ...)``; ``rows`` as above."""
    task = chunk.task
    s, q = (torch.from_numpy(change.weights[part]).to(task.s) for part in rows)
    ys, yq = (torch.from_numpy(change.labels[part]).to(task.ys) for part in rows)
    return passes.gradients(params, task._replace(s=s, q=q, ys=ys, yq=yq))[0]


def linear_edit(
    params: Params,
    curvature: Product,
    gradient: Tensor,
    *,
    shift: float,
    tolerance: float = 1e-3,
    iterations: int = 100,
    on_iteration: Callable[[int, float], None] = lambda iteration, residual: None,
) -> tuple[Params, Solution]:
    """``lambda + (C + shift I)^-1 gradient`` (from :func:`change_gradient`), and the report of the solve."""
    solution = conjugate_gradients(
        curvature, gradient, shift=shift, tolerance=tolerance, iterations=iterations, on_iteration=on_iteration
    )
    return unflatten(flatten(params) + solution.x, params), solution
