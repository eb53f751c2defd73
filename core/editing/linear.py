"""The linear edit: lambda minus the sum of the influence functions of what changes (paper, section 5.2).

A removal counts to first order in the weights. A label has no weight, and relabelling a support row is a step twice as
long as removing it; so for a task with relabelled rows the exact change of its gradient is used, and the edit is one
Newton step towards the changed objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.maml.backbone import Params
from core.maml.episodes import Chunk, Episodes, OnChunk, no_progress
from core.maml.objective import Bilevel
from core.maml.passes import Passes, passes_of
from core.maml.vectors import flatten


@dataclass(frozen=True)
class RowChange:
    """The change of every row of the task table, ``(rows,)`` each; ``weights`` and ``labels`` are after the change.

    ``decrease`` (of the weight) is 0 for support rows of tasks that are removed entirely; ``relabelled`` rows have
    a new label and a positive weight.
    """

    decrease: np.ndarray
    weights: np.ndarray
    labels: np.ndarray
    relabelled: np.ndarray


def row_change(episodes: Episodes, weights: np.ndarray, labels: np.ndarray | None = None) -> RowChange:
    """Return the change of the task table to ``weights`` and ``labels`` (None: unchanged), ``(rows,)`` each."""
    rows = episodes.tasks.rows
    query = rows["role"] == "query"
    is_kept = rows["task_id"].isin(rows.loc[query & (weights > 0), "task_id"]).to_numpy()
    old_labels = rows["label"].to_numpy()
    new_labels = old_labels if labels is None else labels
    decrease = np.where(query | is_kept, rows["weight"].to_numpy() - weights, 0.0)
    return RowChange(decrease, weights, new_labels, (new_labels != old_labels) & (weights > 0) & is_kept)


def touched_tasks(episodes: Episodes, change: RowChange) -> np.ndarray:
    """Return the positions of the tasks with any change."""
    return _positions(episodes, (change.decrease != 0) | change.relabelled)


def _positions(episodes: Episodes, rows: np.ndarray) -> np.ndarray:
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
    """Return the sum of the gradients whose influence functions a change adds up, ``(P,)``.

    For a removed query row it is D_lambda of its share of the loss (Thm 4.5), for a support row D_lambda d L_O / d s_z
    (Prop. 4.8 with the sign of the appendix). A task that loses all its query rows leaves the objective: its total
    gradient counts (Thm 4.3), its support rows do not. For a task with relabelled rows it is its total gradient before
    minus that after all its changes. ``weights`` and ``labels`` are as for :func:`row_change`.
    """
    change = row_change(episodes, weights, labels)
    relabelled = _positions(episodes, change.relabelled)
    reweighted = np.setdiff1d(touched_tasks(episodes, change), relabelled)
    passes, total = passes_of(model), torch.zeros_like(flatten(params))

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        gradients = chunk_gradients(passes, params, chunk, episodes.rows(chunk.positions), change)
        return [flatten({name: value.sum(0) for name, value in gradients.items()})]

    for positions in (reweighted, relabelled):
        if len(positions):
            total = total + episodes.sum_chunks(of_chunk, positions, on_chunk)[0]
    return total


def chunk_gradients(
    passes: Passes, params: Params, chunk: Chunk, rows: tuple[np.ndarray, np.ndarray], change: RowChange
) -> Params:
    """Return :func:`change_gradient` per task of a chunk, ``(T, ...)``; all of them have relabelled rows, or none.

    ``rows`` are those of :meth:`.Episodes.rows`.
    """
    task = chunk.task
    if not any(change.relabelled[part].any() for part in rows):
        s, q = (torch.from_numpy(change.decrease[part]).to(task.s) for part in rows)
        return passes.weight_change_gradients(params, task, task._replace(s=s, q=q))
    before, _ = passes.gradients(params, task)
    after = changed_gradients(passes, params, chunk, rows, change)
    return {name: value - after[name] for name, value in before.items()}


def changed_gradients(
    passes: Passes, params: Params, chunk: Chunk, rows: tuple[np.ndarray, np.ndarray], change: RowChange
) -> Params:
    """Return the total gradients of a chunk's tasks after the change, ``(T, ...)``."""
    task = chunk.task
    s, q = (torch.from_numpy(change.weights[part]).to(task.s) for part in rows)
    ys, yq = (torch.from_numpy(change.labels[part]).to(task.ys) for part in rows)
    return passes.gradients(params, task._replace(s=s, q=q, ys=ys, yq=yq))[0]
