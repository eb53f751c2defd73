"""From task lists to tensors: tasks of equal shape are stacked into chunks that one batched program runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from core.data import ImageSet
from core.maml.backbone import Params
from core.maml.objective import Task
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


@dataclass(frozen=True, eq=False)
class _Group:
    """Tasks of equal shape: positions ``(T,)``; rows of the table, image positions, labels, weights ``(T, S + Q)``."""

    positions: np.ndarray
    rows: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    support: int


class Episodes:
    """The tensors of a task list, made chunk by chunk, so that memory follows the chunk and not the list.

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
        """All tasks, or those at ``positions``, in chunks of one shape."""
        for group in self._groups:
            here = np.arange(len(group.positions))
            if positions is not None:
                here = here[np.isin(group.positions, positions)]
            for start in range(0, len(here), self.chunk):
                yield self._tensors(group, here[start : start + self.chunk])

    def count(self, positions: np.ndarray | None = None) -> int:
        """How many tasks :meth:`chunks` will yield in all; the unit of progress."""
        return len(self) if positions is None else len(positions)

    def rows(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the task table that belong to the tasks of one chunk: support ``(T, S)`` and query ``(T, Q)``."""
        group = next(g for g in self._groups if np.isin(positions, g.positions).all())
        rows = group.rows[np.searchsorted(group.positions, positions)]
        return rows[:, : group.support], rows[:, group.support :]

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


Tensors = TypeVar("Tensors")
Out = TypeVar("Out")


def batched(function: Callable[[Params, Tensors], Out]) -> Callable[[Params, Tensors], Out]:
    """Lift ``function(params, task)`` to chunks: parameters shared, everything else along the first axis."""
    return vmap(function, in_dims=(None, 0))


def total(function: Callable[[Params, Tensors], Tensor]) -> Callable[[Params, Tensors], Tensor]:
    """``function(params, task)`` summed over the tasks of a chunk."""

    def summed(params: Params, chunk: Tensors) -> Tensor:
        return batched(function)(params, chunk).sum(0)

    return summed
