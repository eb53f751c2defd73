"""Adapters from the bilevel model to dattri: a data point is a task, and the inner loop is part of its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core.baselines.libraries import require
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Task
from core.runtime.errors import UserError

TaskValue = Callable[[Params, Task], Tensor]
Batch = tuple[Tensor, ...]


def quiet(name: str) -> Any:
    """Import a module of dattri and disable its progress bars."""
    module: Any = require(name)
    module.tqdm = lambda batches, **settings: batches
    return module


def task_loader(episodes: Episodes) -> DataLoader:
    """Return a loader of ``(xs, ys, s, xq, yq, q)`` in list order, ``episodes.chunk`` tasks per batch.

    Raises:
        UserError: tasks differ in the number of support or query rows, which dattri cannot batch.
    """
    rows = episodes.tasks.rows
    for role, part in rows.groupby("role"):
        sizes = part.groupby("task_id").size()
        if sizes.nunique() > 1:
            raise UserError(
                f"Tasks have between {sizes.min()} and {sizes.max()} {role} rows; dattri needs equal numbers.",
                "Use tasks of one shape for this baseline.",
            )

    def collate(positions: list[int]) -> Batch:  # whole batches, so that memory grows with them and not with the list
        return tuple(next(episodes.chunks(np.array(positions))).task)

    positions: Any = range(len(episodes))
    return DataLoader(positions, batch_size=episodes.chunk, collate_fn=collate)


def attribution_task(value: TaskValue, checkpoints: Sequence[Params]) -> Any:
    """Return dattri's ``AttributionTask`` for a value of (parameters, task), at one or several checkpoints.

    Raises:
        UserError: there are no checkpoints.
    """
    if not checkpoints:
        raise UserError("The baseline needs at least one checkpoint.", "Train with checkpoints first.")

    def module(params: Params) -> nn.Module:  # dattri reads names, order and shapes; names cannot contain dots
        return nn.ParameterList(value.detach().clone() for value in params.values())

    states = [module(params).state_dict() for params in checkpoints]
    function = with_dattri_arguments(value, checkpoints[0])
    return require("dattri.task").AttributionTask(function, module(checkpoints[0]), states)


def with_dattri_arguments(value: TaskValue, like: Params) -> Callable[[Params, Batch], Tensor]:
    """Return the value as a function of dattri's arguments: parameters named by position, and a plain tuple."""

    def function(params: Params, data: Batch) -> Tensor:
        return value(dict(zip(like, params.values(), strict=True)), Task(*data))

    return function


def check_gradient(
    gradient: Callable[[Tensor, Batch], Tensor], on_step: Callable[[int], None] = lambda tasks: None
) -> Callable[[Tensor, Batch], Tensor]:
    """Wrap one of dattri's gradients ``(P,), batch -> (tasks, P)``: raise if not finite, since dattri maps NaN to 0.

    The result is float64 whatever the model's precision, since dattri computes in that of the gradients and TRAK
    inverts their Gram matrix, which squares their condition number. ``on_step`` gets the number of tasks per batch.
    """

    def function(params: Tensor, data: Batch) -> Tensor:
        out = gradient(params, data)
        if not torch.isfinite(out).all():
            raise UserError(
                "The gradient of a task's loss is not finite, so the task cannot be scored.",
                "Check that the training converged, and that no task has zero weight.",
            )
        on_step(len(out))
        return out.double()

    return function
