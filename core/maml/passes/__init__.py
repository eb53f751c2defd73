"""Provide the passes over a chunk of tasks on which all computations are built, in the fastest implementation."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from core.maml.backbone import Params
from core.maml.objective import Bilevel, Task
from core.maml.passes.generic import GenericPasses, RowScores
from core.maml.passes.plan import plan_of
from core.maml.passes.unrolled import UnrolledPasses

__all__ = ["GenericPasses", "Passes", "RowScores", "UnrolledPasses", "default_chunk_size", "passes_of"]


_DEFAULT_CHUNK = 8
_CPU_TENSOR_BYTES, _CPU_MAX_TASKS = 30_000_000, 16  # larger chunks were not faster
_GPU_TENSORS_IN_MEMORY, _GPU_MAX_TASKS = 100, 256  # a pass stores about 40 tensors of the size of the largest one


class Passes(Protocol):
    """A set of passes over a chunk of T tasks at meta-parameters ``params``.

    Results are sums over the chunk unless stated otherwise.
    """

    def query_logits(self, params: Params, chunk: Task) -> Tensor:
        """Return the logits ``(T, Q, ways)`` of the query images after adaptation."""

    def gradients(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        """Return the total gradient g_k of every task ``(T, ...)`` (Thm 4.1) and its query loss ``(T,)``."""

    def gradient(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        """Return the sum of the total gradients over the tasks, and the query losses ``(T,)``."""

    def hessian(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return ``sum_k D_lambda D_lambda L_O^k v`` through the adaptation (Def. 4.2), without approximation."""

    def gauss_newton(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return ``sum_k J_k^T A_k J_k v``.

        J_k is the derivative of the query logits of task k with respect to lambda, through the adaptation, and A_k is
        the Hessian of its query loss with respect to the logits.
        """

    def fisher(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return ``sum_k g_k g_k^T v``."""

    def weight_change_gradients(self, params: Params, chunk: Task, change: Task) -> Params:
        """Return D_lambda of the derivative of each L_O^k along a change of its weights, ``(T, ...)``.

        The change is given by s and q of ``change``.
        """

    def row_scores(self, params: Params, u: Params, chunk: Task) -> RowScores:
        """Return the scores of every row along u (:mod:`core.influence.scores`), and the logits after adaptation."""


def default_chunk_size(
    model: Bilevel, shape: tuple[int, int, int], rows: int, device: torch.device, dtype: torch.dtype
) -> int:
    """Return the recommended number of tasks per chunk, for tasks of ``rows`` images of ``shape``.

    It is small on a CPU, to fit the cache and to limit memory, and large on a GPU, to use it fully.
    """
    plan = plan_of(model.network)
    if plan is None:
        return _DEFAULT_CHUNK
    stride = plan.blocks[0].stride
    positions = -(-shape[0] // stride) * -(-shape[1] // stride)
    largest_tensor = rows * positions * plan.filters * dtype.itemsize  # bytes per task
    if device.type == "cpu":
        return min(max(_CPU_TENSOR_BYTES // largest_tensor, 1), _CPU_MAX_TASKS)
    memory = torch.cuda.get_device_properties(device).total_memory
    return min(max(memory // (_GPU_TENSORS_IN_MEMORY * largest_tensor), 1), _GPU_MAX_TASKS)


def passes_of(model: Bilevel) -> Passes:
    """Return passes with explicit derivatives if the network and its adaptation allow, else with automatic ones."""
    return UnrolledPasses.of(model) or GenericPasses(model)
