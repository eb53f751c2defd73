"""Gradients kept as files that are read without loading them: one row a task, or one row a row of the task table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.maml.episodes import Chunk, ChunkCache, Episodes, OnChunk, no_progress
from core.runtime.errors import UserError
from core.runtime.files import disk_errors
from core.workspace.runs import Run

MOST_BYTES = 1e9
"""Of one file; gradients that would take more are computed when they are needed."""


def fits(rows: int, size: int, dtype: torch.dtype) -> bool:
    """Whether ``rows`` gradients of ``size`` parameters are kept."""
    return rows * size * dtype.itemsize <= MOST_BYTES


def write(
    path: Path,
    shape: tuple[int, int],
    episodes: Episodes,
    of_chunk: Callable[[Chunk], Tensor],
    rows_of: Callable[[np.ndarray], np.ndarray],
    memory: ChunkCache,
    on_chunk: OnChunk = no_progress,
) -> None:
    """Write a ``.npy`` file of ``shape`` in the precision of ``episodes``, chunk by chunk; goes on where it stopped.

    Args:
        of_chunk: The rows of a chunk's tasks, ``(rows, shape[1])``.
        rows_of: From positions of tasks to the places of those rows, ascending.
        memory: Keeps which chunks are in the file.

    Raises:
        UserError: the disk is full.
    """
    dtype = torch.empty(0, dtype=episodes.dtype).numpy().dtype
    with disk_errors(path):
        start = _begin(path, shape, dtype)

    def write_chunk(chunk: Chunk) -> list[Tensor]:
        found, places = of_chunk(chunk).cpu().numpy(), rows_of(chunk.positions)
        # Written rather than mapped: where a mapped file meets a full disk the process is killed.
        with disk_errors(path), path.open("r+b") as file:
            for run in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1):
                file.seek(start + int(places[run[0]]) * shape[1] * dtype.itemsize)
                file.write(np.ascontiguousarray(found[run]).data)
        return [torch.from_numpy(chunk.positions)]

    for _ in episodes.collected(write_chunk, on_chunk=on_chunk, memory=memory):
        pass


def _begin(path: Path, shape: tuple[int, int], dtype: np.dtype) -> int:
    """Make the file with its header, if it is not there; returns where its numbers begin."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()


def read(run: Run, name: str, shape: tuple[int, int]) -> np.ndarray | None:
    """Map such a file of a run; None where the run has none.

    Raises:
        UserError: it is damaged, or of another size.
    """
    path = run.folder / name
    if not path.exists():
        return None
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Delete the run and do it again.") from error
    if found.shape != shape:
        raise UserError(f"{path} belongs to another problem.", "Delete the run and do it again.")
    return found
