"""Removal gradients per row: their weighted sums are the removal gradients of any set of rows.

The removal gradient (:mod:`core.editing.linear`) is linear in the decrease of the weights, so one stored gradient per
row serves every removal set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.maml.backbone import Params
from core.maml.objective import Bilevel, Task
from core.maml.passes import passes_of
from core.maml.vectors import flatten_each

_COPIES = 5  # of a task, processed together; more are no faster


def row_gradients(model: Bilevel, params: Params, chunk: Task) -> Tensor:
    """Return the removal gradient per row that loses a weight of 1, ``(S + Q, P)``, support rows first.

    Args:
        chunk: One task, with a first axis of length 1.
    """
    passes, parts = passes_of(model), []
    for weights in torch.eye(chunk.s.shape[-1]).to(chunk.s).split(_COPIES):
        copies = _repeat(chunk, len(weights))
        change = copies._replace(s=weights, q=torch.zeros_like(copies.q))
        parts.append(flatten_each(passes.weight_change_gradients(params, copies, change)))
    for weights in torch.eye(chunk.q.shape[-1]).to(chunk.q).split(_COPIES):
        # A query row's share of the loss is the loss of the task in which no other query row has any weight.
        gradients, _ = passes.gradients(params, _repeat(chunk, len(weights))._replace(q=weights))
        parts.append(flatten_each(gradients))
    return torch.cat(parts)


def _repeat(chunk: Task, times: int) -> Task:
    return Task(*(value.expand(times, *value.shape[1:]) for value in chunk))
