"""Provide the passes over a chunk of tasks on which all computations are built, in the fastest implementation."""

from __future__ import annotations

import torch

from core.maml.objective import Bilevel
from core.maml.passes.generic import GenericPasses, RowScores
from core.maml.passes.plan import plan_of
from core.maml.passes.unrolled import UnrolledPasses

__all__ = ["GenericPasses", "Passes", "RowScores", "UnrolledPasses", "default_chunk_size", "passes_of"]


_DEFAULT_CHUNK = 8
_CPU_TENSOR_BYTES, _CPU_MAX_TASKS = 30_000_000, 16  # larger chunks were not faster
_GPU_TENSORS_IN_MEMORY, _GPU_MAX_TASKS = 100, 256  # a pass stores about 40 tensors of the size of the largest one


Passes = GenericPasses | UnrolledPasses


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
