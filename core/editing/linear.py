"""The linear edit: lambda minus the sum of the influence functions of what is removed (paper, section 5.2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from core.influence.solvers import Product, Solution, conjugate_gradients
from core.maml.backbone import Params
from core.maml.episodes import Chunk, Episodes, OnChunk, told_nobody
from core.maml.objective import Bilevel
from core.maml.passes import passes_of
from core.maml.vectors import flatten, unflatten


def removal_gradient(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    weights: np.ndarray,
    on_chunk: OnChunk = told_nobody,
) -> Tensor:
    """Sum of the gradients whose influence functions a removal adds up, ``(P,)``.

    For a query row it is D_lambda of its share of the loss (Thm 4.5), for a support row D_lambda d L_O / d s_z
    (Prop. 4.8 with the sign of the appendix). A task that loses all its query rows leaves the objective: only
    its total gradient counts (Thm 4.3), its support rows do not.

    Args:
        weights: ``(rows of the task table,)`` after the removal.
    """

    change = weight_change(episodes, weights)
    positions = touched_tasks(episodes, change)
    changes = episodes.with_weights(change)
    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        found = passes.removals(params, chunk.task, changes.at(chunk.positions))
        return [flatten({name: value.sum(0) for name, value in found.items()})]

    if not len(positions):
        return torch.zeros_like(flatten(params))
    return episodes.summed(of_chunk, positions, on_chunk)[0]


def weight_change(episodes: Episodes, weights: np.ndarray) -> np.ndarray:
    """What every row of the task table loses, support rows of tasks that leave the objective excepted."""
    rows = episodes.tasks.rows
    query = rows["role"] == "query"
    kept = rows["task_id"].isin(rows.loc[query & (weights > 0), "task_id"])
    return np.where(query | kept, rows["weight"].to_numpy() - weights, 0.0)


def touched_tasks(episodes: Episodes, change: np.ndarray) -> np.ndarray:
    """Positions of the tasks that lose anything."""
    touched = set(episodes.tasks.rows.loc[change != 0, "task_id"])
    return np.array([i for i, task_id in enumerate(episodes.tasks.task_ids) if task_id in touched], dtype=np.int64)


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
    """``lambda + (C + shift I)^-1 gradient`` (from :func:`removal_gradient`), and the report of the solve."""
    solution = conjugate_gradients(
        curvature, gradient, shift=shift, tolerance=tolerance, iterations=iterations, on_iteration=on_iteration
    )
    return unflatten(flatten(params) + solution.x, params), solution
