"""A removal set, and what a task list looks like without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from core.errors import UserError
from core.files import content_hash
from core.tasks.tasklist import TaskList


@dataclass(frozen=True)
class Changes:
    """What is to be removed.

    Attributes:
        tasks: Task ids.
        images: Image ids; an image is removed from every task it occurs in.
        instances: (task id, role, image id): one image in one role of one task.
    """

    tasks: frozenset[str] = field(default_factory=frozenset)
    images: frozenset[str] = field(default_factory=frozenset)
    instances: frozenset[tuple[str, str, str]] = field(default_factory=frozenset)

    def __len__(self) -> int:
        return len(self.tasks) + len(self.images) + len(self.instances)

    @property
    def hash(self) -> str:
        return content_hash(sorted(self.tasks), sorted(self.images), sorted(self.instances))

    def mask(self, tasks: TaskList) -> np.ndarray:
        """``(rows,)`` of bool: the rows of the task table that go.

        Raises:
            UserError: something in the set is not in the task list.
        """
        rows = tasks.rows
        keys = pd.MultiIndex.from_frame(rows[["task_id", "role", "image_id"]])
        have: dict[str, tuple[set[Any], set[Any]]] = {
            "task": (set(self.tasks), set(rows["task_id"])),
            "image": (set(self.images), set(rows["image_id"])),
            "instance": (set(self.instances), set(keys) if self.instances else set()),
        }
        for kind, (wanted, known) in have.items():
            if unknown := sorted(wanted - known):
                raise UserError(f"The {kind} {unknown[0]!r} is not in the task list.", "Check the removal set.")
        gone = rows["task_id"].isin(self.tasks) | rows["image_id"].isin(self.images)
        return (gone | keys.isin(list(self.instances))).to_numpy()

    def weights(self, tasks: TaskList) -> np.ndarray:
        """``(rows,)``: the weights of the task table after the removal."""
        return np.where(self.mask(tasks), 0.0, tasks.rows["weight"].to_numpy())


def cleaned(tasks: TaskList, removal: Changes, *, drop_rows: bool = False) -> TaskList:
    """The task list without ``removal``.

    Tasks without any query row of positive weight are left out whole. Other removed rows stay with weight 0,
    which is exactly what the edits measure; with ``drop_rows`` they are taken out of the table, for tools that
    know no weights (means over what is left then have smaller denominators).

    Raises:
        UserError: nothing would be left, or with ``drop_rows`` a task would lose a whole class.
    """
    rows = tasks.rows.assign(weight=removal.weights(tasks))
    alive = rows.loc[(rows["role"] == "query") & (rows["weight"] > 0), "task_id"]
    rows = rows[rows["task_id"].isin(alive)]
    if rows.empty:
        raise UserError("Nothing would be left of the task list.", "Remove less.")
    if drop_rows:
        rows = rows[rows["weight"] > 0]
        support = rows[rows["role"] == "support"].groupby("task_id")["label"].nunique()
        support = support.reindex(rows["task_id"].unique(), fill_value=0)
        if (support < tasks.ways).any():
            task_id = support.index[int(np.flatnonzero(support < tasks.ways)[0])]
            raise UserError(
                f"Task {task_id!r} would lose all support images of a class.",
                "Remove the whole task too, or keep removed rows with weight 0.",
            )
    return TaskList(rows.reset_index(drop=True))
