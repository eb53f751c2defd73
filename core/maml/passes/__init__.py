"""What everything that runs over tasks is made of: passes over one chunk of them, in the way that is fastest."""

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


_USUAL = 8
_CPU_BYTES, _CPU_MOST = 30_000_000, 16  # of the largest tensor of a chunk; of tasks. Larger chunks were no faster.
_GPU_TENSORS, _GPU_MOST = 100, 256  # as many of the largest tensor fit into the memory: a pass keeps about forty


class Passes(Protocol):
    """Passes over a chunk of T tasks at meta-parameters ``params``; sums over the chunk where nothing else is said."""

    def query_logits(self, params: Params, chunk: Task) -> Tensor:
        """Logits ``(T, Q, ways)`` of the query images after adaptation."""

    def gradients(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        """Total gradients g_k of every task ``(T, ...)`` (Thm 4.1) and its query loss ``(T,)``."""

    def gradient(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        """Their sum, and the query losses ``(T,)``."""

    def hessian(self, params: Params, v: Params, chunk: Task) -> Params:
        """``sum_k D_lambda D_lambda L_O^k v`` through the adaptation (Def. 4.2): nothing is approximated."""

    def gauss_newton(self, params: Params, v: Params, chunk: Task) -> Params:
        """``sum_k J_k^T A_k J_k v``: J_k the derivative of task k's query logits by lambda, through the adaptation,
        and A_k the Hessian of its query loss by the logits."""

    def fisher(self, params: Params, v: Params, chunk: Task) -> Params:
        """``sum_k g_k g_k^T v``."""

    def weight_change_gradients(self, params: Params, chunk: Task, change: Task) -> Params:
        """D_lambda of the derivative of each L_O^k along a change of its weights, the s and q of ``change``:
        ``(T, ...)``."""

    def row_scores(self, params: Params, u: Params, chunk: Task) -> RowScores:
        """Scores of every row along u (:mod:`core.influence.scores`), and what the adapted models say of them."""


def default_chunk_size(
    model: Bilevel, shape: tuple[int, int, int], rows: int, device: torch.device, dtype: torch.dtype
) -> int:
    """Tasks of ``rows`` images of ``shape`` that are best run at once.

    On a CPU few, for the sake of its cache and of memory; on a GPU as many as fill it.
    """
    plan = plan_of(model.network)
    if plan is None:
        return _USUAL
    stride = plan.blocks[0].stride
    places = -(-shape[0] // stride) * -(-shape[1] // stride)
    largest = rows * places * plan.filters * dtype.itemsize
    if device.type == "cpu":
        return min(max(_CPU_BYTES // largest, 1), _CPU_MOST)
    memory = torch.cuda.get_device_properties(device).total_memory
    return min(max(memory // (_GPU_TENSORS * largest), 1), _GPU_MOST)


def passes_of(model: Bilevel) -> Passes:
    """Written-out derivatives where the network and its adaptation allow, else PyTorch's own."""
    return UnrolledPasses.of(model) or GenericPasses(model)
