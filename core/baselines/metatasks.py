"""Adapters from the bilevel model to dattri: a data point is a task, and the inner loop is part of its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from core.baselines.libraries import require
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Task
from core.runtime.errors import UserError

TaskValue = Callable[[Params, Task], Tensor]
Batch = tuple[Tensor, ...]


class _Holder(nn.Module):
    """A module of parameters only, from which dattri reads their names, order and shapes.

    Names of a module's parameters cannot contain dots, so the parameters are named by position.
    """

    def __init__(self, params: Params) -> None:
        super().__init__()
        for position, value in enumerate(params.values()):
            self.register_parameter(f"p{position}", nn.Parameter(value.detach().clone()))


class _Tasks(Dataset):
    """A dataset of tasks that returns whole batches, so that memory grows with the batch and not with the list."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitems__(self, positions: list[int]) -> Task:
        return next(self._episodes.chunks(np.array(positions))).task


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
    return DataLoader(_Tasks(episodes), batch_size=episodes.chunk, collate_fn=tuple)


def attribution_task(value: TaskValue, checkpoints: Sequence[Params]) -> Any:
    """Return dattri's ``AttributionTask`` for a value of (parameters, task), at one or several checkpoints.

    Raises:
        UserError: there are no checkpoints.
    """
    if not checkpoints:
        raise UserError("The baseline needs at least one checkpoint.", "Train with checkpoints first.")
    states = [_Holder(params).state_dict() for params in checkpoints]
    model = _Holder(checkpoints[0])
    return require("dattri.task").AttributionTask(with_dattri_arguments(value, checkpoints[0]), model, states)


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
    inverts their Gram matrix, which squares their condition number.

    Args:
        on_step: Called with the number of tasks after each batch, for progress and cancelling.
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
