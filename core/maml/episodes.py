"""Convert task lists to tensors, with tasks of equal shape stacked into chunks for batched computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from core.data import ImageSet
from core.maml.backbone import Params
from core.maml.objective import Task
from core.runtime.distributed import world
from core.runtime.hashing import content_hash
from core.tasks.tasklist import TaskList


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk of T tasks of equal shape, with their positions in the task list ``(T,)``."""

    positions: np.ndarray
    task: Task


Out = TypeVar("Out")
OnChunk = Callable[[int], None]
"""A callback that receives the number of tasks after each chunk, for progress and cancellation."""


def no_progress(tasks: int) -> None:
    """Ignore the progress."""


class ChunkCache(Protocol):
    """A cache of chunk results, so that interrupted work resumes without recomputing them."""

    def get(self, key: str) -> list[np.ndarray] | None:
        """Return the arrays that are stored for a key, or None."""

    def put(self, key: str, arrays: list[np.ndarray]) -> None:
        """Store arrays for a key."""


def get_or_compute(memory: ChunkCache, key: str, compute: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """Return the arrays that are stored for a key, or compute and store them."""
    arrays = memory.get(key)
    if arrays is None:
        arrays = compute()
        memory.put(key, arrays)
    return arrays


@dataclass(frozen=True, eq=False)
class _ShapeGroup:
    """T tasks of equal shape with S support rows: positions in the task list ``(T,)``, the others ``(T, S + Q)``."""

    positions: np.ndarray
    rows: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    support: int


_ROUNDS_PER_EXCHANGE = 8  # rounds of chunks between two exchanges; fewer make processes wait, more take more memory
_Piece = tuple[_ShapeGroup, np.ndarray]
"""A group and the indices of some of its tasks."""


def _task_count(pieces: Sequence[_Piece]) -> int:
    return sum(len(indices) for _, indices in pieces)


class Episodes:
    """A dataset that builds the tensors of a task list chunk by chunk, so that memory depends on the chunk size only.

    Callers define what to compute for a chunk (:meth:`sum_chunks`, :meth:`collect_chunks`). On a CPU, every PyTorch
    thread processes separate chunks. If all threads shared every operation instead, they would wait for each other at
    each one, which costs more than the work itself on a busy machine. Every process of
    :func:`core.runtime.distributed.world` also processes separate chunks; afterwards all processes have the results of
    all chunks.

    Args:
        tasks: The tasks. Rows of weight 0 are kept.
        chunk: Maximum number of tasks per chunk.
    """

    def __init__(
        self,
        tasks: TaskList,
        images: ImageSet,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        chunk: int = 8,
    ) -> None:
        self.tasks, self.device, self.dtype, self.chunk = tasks, torch.device(device), dtype, chunk
        self._image_set = images
        self._images = images.images  # possibly a memory map, so images are read only when a chunk is built
        self._groups = _group_by_shape(tasks, images)

    def __len__(self) -> int:
        return len(self.tasks)

    def evenly_spaced(self, count: int) -> Episodes:
        """Return at most ``count`` of the tasks, evenly spaced in the list."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))
        tasks = self.tasks.select([self.tasks.task_ids[position] for position in chosen])
        return Episodes(tasks, self._image_set, device=self.device, dtype=self.dtype, chunk=self.chunk)

    def chunks(self, positions: np.ndarray | None = None) -> Iterator[Chunk]:
        """Yield all tasks, or those at ``positions``, in chunks of equal shape; every process receives all chunks."""
        for piece in self._pieces(positions):
            yield self._tensors(*piece)

    def _pieces(self, positions: np.ndarray | None, workers: int = 1) -> list[_Piece]:
        """Return the pieces that become chunks, of about equal size; a multiple of ``workers`` if possible."""
        pieces = []
        for group in self._groups:
            included = np.ones(len(group.positions), bool) if positions is None else np.isin(group.positions, positions)
            indices = np.flatnonzero(included)
            count = -(-len(indices) // self.chunk)
            count = min(-(-count // workers) * workers, len(indices))
            pieces += [(group, part) for part in np.array_split(indices, count)] if count else []
        return pieces

    def _threads(self) -> int:
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def _rounds(self, positions: np.ndarray | None) -> list[Sequence[_Piece]]:
        """Return the pieces in rounds of one piece per process."""
        return world().rounds(self._pieces(positions, self._threads() * world().size))

    def _map_own_chunks(self, function: Callable[[Chunk], Out], rounds: list[Sequence[_Piece]]) -> Iterator[Out]:
        """Yield the result for the chunk of this process in every round; several threads call ``function`` on a CPU."""
        workers, rank = self._threads(), world().rank
        pieces = [pieces[rank] for pieces in rounds if rank < len(pieces)]
        if workers == 1 or len(pieces) == 1:
            for piece in pieces:
                yield function(self._tensors(*piece))
            return
        futures: deque[Future[Out]] = deque()
        try:
            for piece in pieces:
                futures.append(_thread_pool(workers).submit(lambda piece: function(self._tensors(*piece)), piece))
                if len(futures) > workers:  # bound the queue, so that memory does not grow with the tasks
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()

    def sum_chunks(
        self,
        function: Callable[[Chunk], Sequence[Tensor]],
        positions: np.ndarray | None = None,
        on_chunk: OnChunk = no_progress,
    ) -> list[Tensor]:
        """Return the sums of the results of ``function`` over all chunks, added in chunk order."""
        processes, rounds, sums = world(), self._rounds(positions), list[Tensor]()
        with processes.sync_errors():
            for parts, pieces in zip(self._map_own_chunks(function, rounds), rounds, strict=False):
                sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else list(parts)
                on_chunk(_task_count(pieces))
        if rounds and len(rounds[0]) < processes.size:  # some processes had no chunk
            shapes = processes.broadcast([(part.shape, part.dtype) for part in sums])
            sums = sums or [torch.zeros(shape, dtype=dtype, device=self.device) for shape, dtype in shapes]
        return processes.sum(sums)

    def collect_chunks(
        self,
        function: Callable[[Chunk], Sequence[Tensor]],
        positions: np.ndarray | None = None,
        on_chunk: OnChunk = no_progress,
        memory: ChunkCache | None = None,
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Yield the positions of the tasks of every chunk and the results of ``function`` as arrays.

        The first axis of every array is that of the tasks. With ``memory``, results are read from it or stored in it.
        """

        def arrays(chunk: Chunk) -> list[np.ndarray]:
            def compute() -> list[np.ndarray]:
                return [part.cpu().numpy() for part in function(chunk)]

            return get_or_compute(memory, content_hash(chunk.positions)[:24], compute) if memory else compute()

        processes, rounds = world(), self._rounds(positions)
        own_results = self._map_own_chunks(arrays, rounds)
        for start in range(0, len(rounds), _ROUNDS_PER_EXCHANGE):
            results, block = [], rounds[start : start + _ROUNDS_PER_EXCHANGE]
            with processes.sync_errors():
                for pieces, parts in zip(block, own_results, strict=False):
                    results.append(parts)
                    on_chunk(_task_count(pieces))
            by_rank = processes.gather(results)
            for number, pieces in enumerate(block):
                for rank, (group, indices) in enumerate(pieces):
                    yield group.positions[indices], by_rank[rank][number]

    def same_shape_positions(self, count: int) -> np.ndarray:
        """Return the positions of at most ``count`` tasks of the most frequent shape."""
        return max((group.positions for group in self._groups), key=len)[:count]

    def rows(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the task table of the tasks of one chunk: support ``(T, S)`` and query ``(T, Q)``."""
        group = next(g for g in self._groups if np.isin(positions, g.positions).all())
        rows = group.rows[np.searchsorted(group.positions, positions)]
        return rows[:, : group.support], rows[:, group.support :]

    def _tensors(self, group: _ShapeGroup, indices: np.ndarray) -> Chunk:
        pixels = torch.from_numpy(self._images[group.images[indices]]).to(self.device)
        x = pixels.permute(0, 1, 4, 2, 3).contiguous().to(self.dtype) / 255
        y = torch.from_numpy(group.labels[indices]).to(self.device)
        w = torch.from_numpy(group.weights[indices]).to(self.device, self.dtype)
        k = group.support
        return Chunk(group.positions[indices], Task(x[:, :k], y[:, :k], w[:, :k], x[:, k:], y[:, k:], w[:, k:]))


def _group_by_shape(tasks: TaskList, images: ImageSet) -> list[_ShapeGroup]:
    table = tasks.rows
    image = table["image_id"].map(images.index).to_numpy()
    label, weight, task = (table[column].to_numpy() for column in ("label", "weight", "task_id"))
    is_support = (table["role"] == "support").to_numpy()
    starts = np.flatnonzero(np.r_[True, task[1:] != task[:-1]])
    ends = np.r_[starts[1:], len(table)]
    supports = np.add.reduceat(is_support, starts)
    shapes: dict[tuple[int, int], list[int]] = {}
    for position, (start, end, support) in enumerate(zip(starts, ends, supports, strict=True)):
        shapes.setdefault((int(support), int(end - start)), []).append(position)
    groups = []
    for (support, size), members in shapes.items():
        positions = np.array(members)
        rows = starts[positions][:, None] + np.arange(size)
        groups.append(_ShapeGroup(positions, rows, image[rows], label[rows], weight[rows], support))
    return groups


@lru_cache(maxsize=1)
def _thread_pool(workers: int) -> ThreadPoolExecutor:
    """Return a pool of threads that each run PyTorch operations on a single thread."""
    pool = ThreadPoolExecutor(workers, "chunk", initializer=lambda: torch.set_num_threads(1))
    list(pool.map(lambda _: None, range(workers)))
    torch.set_num_threads(workers)  # undo the default that the workers set for threads new to PyTorch
    return pool


Tensors = TypeVar("Tensors")


def vmap_tasks(function: Callable[[Params, Tensors], Out]) -> Callable[[Params, Tensors], Out]:
    """Return ``function(params, task)`` vectorised over the first axis of a chunk, with shared parameters."""
    return vmap(function, in_dims=(None, 0))


def sum_over_tasks(function: Callable[[Params, Tensors], Tensor]) -> Callable[[Params, Tensors], Tensor]:
    """Return ``function(params, task)`` summed over the tasks of a chunk."""
    return lambda params, chunk: vmap_tasks(function)(params, chunk).sum(0)
