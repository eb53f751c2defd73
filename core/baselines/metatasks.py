"""The bilevel model in the terms of dattri: one data point is one whole task, the inner loop is part of its loss."""

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
    """Parameters and nothing else: dattri reads names, order and shapes from a module.

    A module's parameters cannot have dots in their names, so they are called by their position.
    """

    def __init__(self, params: Params) -> None:
        super().__init__()
        for position, value in enumerate(params.values()):
            self.register_parameter(f"p{position}", nn.Parameter(value.detach().clone()))


class _Tasks(Dataset):
    """A task list that hands out whole batches, so that memory follows the batch and not the list."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitems__(self, positions: list[int]) -> Task:
        return next(self._episodes.chunks(np.array(positions))).task


def quiet(name: str) -> Any:
    """A module of dattri without its progress bars, which would run across ours."""
    module: Any = require(name)
    module.tqdm = lambda batches, **settings: batches
    return module


def task_loader(episodes: Episodes) -> DataLoader:
    """The tasks in list order as a loader of ``(xs, ys, s, xq, yq, q)``, ``episodes.chunk`` tasks at once.

    Raises:
        UserError: the tasks differ in the number of support or query rows, which dattri cannot batch.
    """
    rows = episodes.tasks.rows
    for role, part in rows.groupby("role"):
        sizes = part.groupby("task_id").size()
        if sizes.nunique() > 1:
            raise UserError(
                f"The tasks have between {sizes.min()} and {sizes.max()} {role} rows; dattri needs equal ones.",
                "Sample tasks of one shape for this baseline.",
            )
    return DataLoader(_Tasks(episodes), batch_size=episodes.chunk, collate_fn=tuple)


def attribution_task(value: TaskValue, checkpoints: Sequence[Params]) -> Any:
    """dattri's ``AttributionTask`` for a value of (parameters, task), at one or several checkpoints.

    Raises:
        UserError: there is no checkpoint.
    """
    if not checkpoints:
        raise UserError("The baseline has no checkpoint to work at.", "Train with checkpoints first.")
    states = [_Holder(params).state_dict() for params in checkpoints]
    model = _Holder(checkpoints[0])
    return require("dattri.task").AttributionTask(named(value, checkpoints[0]), model, states)


def named(value: TaskValue, like: Params) -> Callable[[Params, Batch], Tensor]:
    """The same value with dattri's arguments: parameters called by position, a task without a name."""

    def function(params: Params, data: Batch) -> Tensor:
        return value(dict(zip(like, params.values(), strict=True)), Task(*data))

    return function


def guarded(
    gradient: Callable[[Tensor, Batch], Tensor], on_step: Callable[[int], None] = lambda tasks: None
) -> Callable[[Tensor, Batch], Tensor]:
    """One of dattri's gradients ``(P,), batch -> (tasks, P)``, refused if not finite: dattri would put 0 for NaN.

    It is float64 whatever the model's type, since dattri computes in the type of the gradients and TRAK inverts
    their Gram matrix, which squares their condition.

    Args:
        on_step: Called with the number of tasks after each batch, for progress and cancelling.
    """

    def function(params: Tensor, data: Batch) -> Tensor:
        out = gradient(params, data)
        if not torch.isfinite(out).all():
            raise UserError(
                "The gradient of a task's loss is not finite; its score would rank nothing.",
                "Check that the training converged, and that no task is without weight.",
            )
        on_step(len(out))
        return out.double()

    return function
