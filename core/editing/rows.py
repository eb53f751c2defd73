"""Removal gradients row by row: their sums are the removal gradients of any set of rows (:mod:`core.editing.linear`).

That gradient is linear in what the weights lose, so that one kept per row answers every removal set by adding up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.maml.backbone import Params
from core.maml.objective import Bilevel, Task
from core.maml.passes import passes_of

_REPEATS = 5  # of a task side by side; more are no faster


def row_gradients(model: Bilevel, params: Params, chunk: Task) -> Tensor:
    """What the removal gradient gains for each row that loses a weight of 1, ``(S + Q, P)``, support rows first.

    Args:
        chunk: One task, with a first axis of length 1.
    """
    return torch.cat([_support(model, params, chunk), _query(model, params, chunk)])


def _support(model: Bilevel, params: Params, chunk: Task) -> Tensor:
    passes, found = passes_of(model), []
    for each in torch.eye(chunk.s.shape[-1]).to(chunk.s).split(_REPEATS):
        repeated = _repeated(chunk, len(each))
        lost = repeated._replace(s=each, q=torch.zeros_like(repeated.q))
        found.append(_rows(passes.weight_change_gradients(params, repeated, lost)))
    return torch.cat(found)


def _query(model: Bilevel, params: Params, chunk: Task) -> Tensor:
    """The gradient of a row's share of the loss, as that of a task where no other row has any weight."""
    passes, found = passes_of(model), []
    for each in torch.eye(chunk.q.shape[-1]).to(chunk.q).split(_REPEATS):
        gradients, _ = passes.gradients(params, _repeated(chunk, len(each))._replace(q=each))
        found.append(_rows(gradients))
    return torch.cat(found)


def _repeated(chunk: Task, times: int) -> Task:
    return Task(*(value.expand(times, *value.shape[1:]) for value in chunk))


def _rows(gradients: Params) -> Tensor:
    return torch.cat([value.flatten(1) for value in gradients.values()], 1)
