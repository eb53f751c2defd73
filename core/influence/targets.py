"""Evaluation targets of influence: all held-out tasks, some of them, or one query image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from core.maml.backbone import Params
from core.maml.episodes import Episodes, OnChunk, no_progress
from core.maml.objective import Bilevel
from core.maml.training import objective_gradient
from core.maml.vectors import flatten
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList


@dataclass(frozen=True)
class Target:
    """The mean query loss of held-out tasks (empty: all), or the loss of one query image of one of them, in nats."""

    tasks: tuple[str, ...] = ()
    image: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``all``, ``TASK,TASK,...`` or ``TASK/IMAGE``; raise UserError if the text names no task."""
        if not isinstance(text, str):
            raise UserError(f"Invalid target: {text!r}.", "Use the text 'all', 'TASK,TASK,...' or 'TASK/IMAGE'.")
        if text == "all":
            return cls()
        if not text.strip(" ,"):
            raise UserError("The target names no held-out task.", "Use all, TASK,TASK,... or TASK/IMAGE.")
        if "/" in text:
            task, image = text.split("/", 1)
            return cls((task,), image)
        return cls(tuple(part.strip() for part in text.split(",") if part.strip()))

    def __str__(self) -> str:
        return (",".join(self.tasks) + (f"/{self.image}" if self.image else "")) or "all"

    def weighted(self, heldout: TaskList) -> TaskList:
        """Return the tasks of the target with weights such that their mean query loss is the loss of the target.

        Raises:
            UserError: a task is not held out, or the image is not among its query images.
        """
        tasks = heldout.select(list(self.tasks)) if self.tasks else heldout
        if not self.image:
            return tasks
        query = (tasks.rows["role"] == "query").to_numpy()
        chosen = query & (tasks.rows["image_id"] == self.image).to_numpy()
        if len(tasks) != 1 or chosen.sum() != 1:
            raise UserError(f"{self.image!r} is not a query image of held-out task {','.join(self.tasks)!r}.")
        weight = np.where(query, chosen * float(query.sum()), tasks.rows["weight"])
        return TaskList(tasks.rows.assign(weight=weight))


def target_gradient(
    model: Bilevel, params: Params, target: Episodes, on_chunk: OnChunk = no_progress
) -> tuple[Tensor, float]:
    """Return the total gradient ``(P,)`` of the target's loss by lambda, through the adaptation, and the loss.

    This is the exact form of Def. 5.2; the paper drops the derivative of the adaptation here.
    """
    gradient, loss = objective_gradient(model, params, target, on_chunk=on_chunk)
    return flatten(gradient) / len(target), loss / len(target)
