"""From task lists to tensors: tasks of equal shape are stacked into chunks that one batched program runs."""

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
from core.runtime.files import content_hash
from core.tasks.tasklist import TaskList


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some tasks of equal shape.

    Attributes:
        positions: ``(T,)`` positions of these tasks in the task list.
        task: Tensors with a first axis of length T.
    """

    positions: np.ndarray
    task: Task


Out = TypeVar("Out")
OnChunk = Callable[[int], None]
"""Told the number of tasks after each chunk, for progress and cancelling."""


def no_progress(tasks: int) -> None:
    """Who wants to know of no chunk."""


class ChunkCache(Protocol):
    """Keeps what chunks gave, so that interrupted work goes on from there."""

    def get(self, key: str) -> list[np.ndarray] | None:
        """What was kept under a name."""

    def put(self, key: str, arrays: list[np.ndarray]) -> None:
        """Keep something."""


def get_or_compute(memory: ChunkCache, key: str, compute: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """What was kept under a name, else what ``compute`` gives, which is kept."""
    kept = memory.get(key)
    if kept is None:
        kept = compute()
        memory.put(key, kept)
    return kept


@dataclass(frozen=True, eq=False)
class _Group:
    """Tasks of equal shape: positions ``(T,)``; rows of the table, image positions, labels, weights ``(T, S + Q)``."""

    positions: np.ndarray
    rows: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    support: int


_ROUNDS = 8  # of chunks between two exchanges: fewer, and processes wait for each other; more, and memory grows
_Piece = tuple[_Group, np.ndarray]
"""A group, and which of its tasks."""


def _tasks(pieces: Sequence[_Piece]) -> int:
    return sum(len(here) for _, here in pieces)


class Episodes:
    """The tensors of a task list, made chunk by chunk, so that memory follows the chunk and not the list.

    This is also the one place that runs through tasks: everything else says what to do with a chunk (:meth:`summed`,
    :meth:`collected`). On a CPU every thread that PyTorch may use takes chunks of its own: threads that share every
    single operation wait for each other at each, which on a machine with other work to do costs more than the work.
    So does every process of :func:`core.runtime.distributed.world`; all of them then have the results of all chunks.

    Args:
        tasks: The tasks; only rows of positive or zero weight as they stand, none is dropped.
        images: The images they name.
        device, dtype: Where and how precisely to compute.
        chunk: Tasks run at once.
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
        self._images = images.images  # maybe a memory map: what a chunk needs is read when it is made
        self._groups = _group(tasks, images)

    def __len__(self) -> int:
        return len(self.tasks)

    def chunks(self, positions: np.ndarray | None = None) -> Iterator[Chunk]:
        """All tasks, or those at ``positions``, in chunks of one shape; on every process all of them."""
        for piece in self._pieces(positions):
            yield self._tensors(*piece)

    def _pieces(self, positions: np.ndarray | None, workers: int = 1) -> list[_Piece]:
        """What makes a chunk each; about equally many tasks, and as many chunks for every worker."""
        pieces = []
        for group in self._groups:
            here = np.arange(len(group.positions))
            if positions is not None:
                here = here[np.isin(group.positions, positions)]
            count = -(-len(here) // self.chunk)
            count = min(-(-count // workers) * workers, len(here))
            pieces += [(group, part) for part in np.array_split(here, count)] if count else []
        return pieces

    def _threads(self) -> int:
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def _rounds(self, positions: np.ndarray | None) -> list[Sequence[_Piece]]:
        """Pieces in rounds of one a process."""
        return world().rounds(self._pieces(positions, self._threads() * world().size))

    def _each(self, function: Callable[[Chunk], Out], rounds: list[Sequence[_Piece]]) -> Iterator[Out]:
        """What ``function`` gives for this process's chunk of every round, in order.

        On a CPU several threads call ``function`` at once.
        """
        workers, rank = self._threads(), world().rank
        pieces = [pieces[rank] for pieces in rounds if rank < len(pieces)]
        if workers == 1 or len(pieces) == 1:
            for piece in pieces:
                yield function(self._tensors(*piece))
            return
        waiting: deque[Future[Out]] = deque()
        try:
            for piece in pieces:
                waiting.append(_pool(workers).submit(lambda at: function(self._tensors(*at)), piece))
                if len(waiting) > workers:  # not further ahead, so that memory does not follow the number of tasks
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for done in waiting:
                done.cancel()

    def summed(
        self,
        function: Callable[[Chunk], Sequence[Tensor]],
        positions: np.ndarray | None = None,
        on_chunk: OnChunk = no_progress,
    ) -> list[Tensor]:
        """Sums over all chunks of what ``function`` gives for each, added up in their order."""
        here, rounds, sums = world(), self._rounds(positions), list[Tensor]()
        with here.sync_errors():
            for parts, pieces in zip(self._each(function, rounds), rounds, strict=False):
                sums = [one + two for one, two in zip(sums, parts, strict=True)] if sums else list(parts)
                on_chunk(_tasks(pieces))
        if rounds and len(rounds[0]) < here.size:  # some had nothing to do
            shapes = here.broadcast([(part.shape, part.dtype) for part in sums])
            sums = sums or [torch.zeros(shape, dtype=dtype, device=self.device) for shape, dtype in shapes]
        return here.sum(sums)

    def collected(
        self,
        function: Callable[[Chunk], Sequence[Tensor]],
        positions: np.ndarray | None = None,
        on_chunk: OnChunk = no_progress,
        memory: ChunkCache | None = None,
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """What ``function`` gives for every chunk, as arrays that have its tasks as their first axis."""

        def arrays(chunk: Chunk) -> list[np.ndarray]:
            def compute() -> list[np.ndarray]:
                return [part.cpu().numpy() for part in function(chunk)]

            return get_or_compute(memory, content_hash(chunk.positions)[:24], compute) if memory else compute()

        here, rounds = world(), self._rounds(positions)
        mine = self._each(arrays, rounds)
        for start in range(0, len(rounds), _ROUNDS):
            own, some = [], rounds[start : start + _ROUNDS]
            with here.sync_errors():
                for pieces, parts in zip(some, mine, strict=False):
                    own.append(parts)
                    on_chunk(_tasks(pieces))
            shares = here.gather(own)
            for turn, pieces in enumerate(some):
                for rank, (group, part) in enumerate(pieces):
                    yield group.positions[part], shares[rank][turn]

    def same_shape_positions(self, count: int) -> np.ndarray:
        """Positions of at most that many tasks of the most frequent shape."""
        return max((group.positions for group in self._groups), key=len)[:count]

    def count(self, positions: np.ndarray | None = None) -> int:
        """How many tasks :meth:`chunks` will yield in all; the unit of progress."""
        return len(self) if positions is None else len(positions)

    def rows(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the task table that belong to the tasks of one chunk: support ``(T, S)`` and query ``(T, Q)``."""
        group = next(g for g in self._groups if np.isin(positions, g.positions).all())
        rows = group.rows[np.searchsorted(group.positions, positions)]
        return rows[:, : group.support], rows[:, group.support :]

    def at(self, positions: np.ndarray) -> Task:
        """The tensors of tasks of one shape."""
        (group,) = (g for g in self._groups if np.isin(positions[0], g.positions))
        return self._tensors(group, np.searchsorted(group.positions, positions)).task

    def with_weights(self, weights: np.ndarray) -> Episodes:
        """The same tasks with other weights; ``weights`` is ``(rows of the table,)``."""
        table = self.tasks.rows.assign(weight=weights)
        other = object.__new__(Episodes)
        other.tasks, other.device, other.dtype, other.chunk = TaskList(table), self.device, self.dtype, self.chunk
        other._images = self._images
        other._groups = [
            _Group(g.positions, g.rows, g.images, g.labels, weights[g.rows], g.support) for g in self._groups
        ]
        return other

    def _tensors(self, group: _Group, here: np.ndarray) -> Chunk:
        pixels = torch.from_numpy(self._images[group.images[here]]).to(self.device)
        x = pixels.permute(0, 1, 4, 2, 3).contiguous().to(self.dtype) / 255
        y = torch.from_numpy(group.labels[here]).to(self.device)
        w = torch.from_numpy(group.weights[here]).to(self.device, self.dtype)
        k = group.support
        return Chunk(group.positions[here], Task(x[:, :k], y[:, :k], w[:, :k], x[:, k:], y[:, k:], w[:, k:]))


def _group(tasks: TaskList, images: ImageSet) -> list[_Group]:
    rows = tasks.rows
    image = rows["image_id"].map(images.index).to_numpy()
    label, weight = rows["label"].to_numpy(), rows["weight"].to_numpy()
    is_support = (rows["role"] == "support").to_numpy()
    starts = np.flatnonzero(np.r_[True, rows["task_id"].to_numpy()[1:] != rows["task_id"].to_numpy()[:-1]])
    ends = np.r_[starts[1:], len(rows)]
    supports = np.add.reduceat(is_support, starts)
    shapes: dict[tuple[int, int], list[int]] = {}
    for position, (start, end, support) in enumerate(zip(starts, ends, supports, strict=True)):
        shapes.setdefault((int(support), int(end - start)), []).append(position)
    groups = []
    for (support, size), members in shapes.items():
        positions = np.array(members)
        where = starts[positions][:, None] + np.arange(size)
        groups.append(_Group(positions, where, image[where], label[where], weight[where], support))
    return groups


@lru_cache(maxsize=1)
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads that compute each on its own, without helpers."""
    pool = ThreadPoolExecutor(workers, "chunk", initializer=lambda: torch.set_num_threads(1))
    list(pool.map(lambda _: None, range(workers)))
    torch.set_num_threads(workers)  # what one thread sets becomes the rule for those that PyTorch has yet to meet
    return pool


Tensors = TypeVar("Tensors")


def batched(function: Callable[[Params, Tensors], Out]) -> Callable[[Params, Tensors], Out]:
    """Lift ``function(params, task)`` to chunks: parameters shared, everything else along the first axis."""
    return vmap(function, in_dims=(None, 0))


def total(function: Callable[[Params, Tensors], Tensor]) -> Callable[[Params, Tensors], Tensor]:
    """``function(params, task)`` summed over the tasks of a chunk."""

    def summed(params: Params, chunk: Tensors) -> Tensor:
        return batched(function)(params, chunk).sum(0)

    return summed
