"""Gradients as memory-mapped ``.npy`` files: one row per task, or one row per row of the task table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.maml.episodes import Chunk, ChunkCache, Episodes, OnChunk, no_progress
from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError
from core.runtime.replacing import make_folder

MAX_BYTES = 1e9  # of one file; gradients that need more are not stored but computed on demand


def fits(rows: int, size: int, dtype: torch.dtype) -> bool:
    """Return whether ``rows`` gradients of ``size`` parameters stay below :data:`MAX_BYTES`."""
    return rows * size * dtype.itemsize <= MAX_BYTES


def write(
    path: Path,
    shape: tuple[int, int],
    episodes: Episodes,
    of_chunk: Callable[[Chunk], Tensor],
    rows_of: Callable[[np.ndarray], np.ndarray],
    memory: ChunkCache | None,
    on_chunk: OnChunk = no_progress,
) -> None:
    """Write a ``.npy`` file of ``shape`` in the precision of ``episodes``, chunk by chunk; resumes.

    Args:
        of_chunk: Returns the gradients of a chunk's tasks, ``(rows, shape[1])``.
        rows_of: Returns, for positions of tasks, the row numbers of their gradients in the file, ascending.
        memory: Records which chunks are in the file.

    Raises:
        UserError: the disk is full.
    """
    dtype = torch.empty(0, dtype=episodes.dtype).numpy().dtype
    with disk_errors(path):
        if not path.exists():
            make_folder(path.parent)
            np.lib.format.open_memmap(path, "w+", dtype, shape)
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            start = file.tell()

    def write_chunk(chunk: Chunk) -> list[Tensor]:
        gradients, rows = of_chunk(chunk).cpu().numpy(), rows_of(chunk.positions)
        # Written rather than mapped: writing to a mapped file on a full disk kills the process.
        with disk_errors(path), path.open("r+b") as file:
            for block in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
                file.seek(start + int(rows[block[0]]) * shape[1] * dtype.itemsize)
                file.write(np.ascontiguousarray(gradients[block]).data)
            file.flush()
            os.fsync(file.fileno())  # before the memory records it: after a power failure it would be zeros
        return [torch.from_numpy(chunk.positions)]

    for _ in episodes.collect_chunks(write_chunk, on_chunk=on_chunk, memory=memory):
        pass


def read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Map a file of gradients, None if it does not exist; raise UserError if it is damaged or of another shape."""
    if not path.exists():
        return None
    try:
        gradients = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Delete the run and repeat it.") from error
    if gradients.shape != shape:
        raise UserError(f"{path} has shape {gradients.shape}, not {shape}.", "Delete the run and repeat it.")
    return gradients
