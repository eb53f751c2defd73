"""Decisions about what to remove."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.errors import UserError
from core.workspace.decisions import Decision, Item, Verdict
from core.workspace.runs import Run
from core.workspace.workspace import Workspace


def worst_items(ranking: Run, by: str, count: int) -> list[Item]:
    """The ``count`` most harmful tasks or images of a ranking."""
    if by not in ("tasks", "images"):
        raise UserError(f"Nothing can be removed by {by!r}.", "Use tasks or images.")
    table = ranking.table(f"{by}.parquet")
    if count > len(table):
        raise UserError(f"There are only {len(table)} {by}.", "Ask for fewer.")
    chosen = table.iloc[np.argsort(table["score"].to_numpy(), kind="stable")[:count]]
    if by == "tasks":
        return [Item("task", task_id=i) for i in chosen["task_id"]]
    return [Item("image", image_id=i) for i in chosen["image_id"]]


def mark(
    workspace: Workspace,
    items: Sequence[Item] = (),
    *,
    tasks: Sequence[str] = (),
    images: Sequence[str] = (),
    verdict: Verdict = "remove",
    reason: str = "",
    reviewer: str = "",
    source: str = "",
) -> None:
    """Append one group of decisions to the log of the workspace.

    Raises:
        UserError: there is nothing to mark, or an item is not in the training tasks.
    """
    every = [*items, *(Item("task", task_id=i) for i in tasks), *(Item("image", image_id=i) for i in images)]
    if not every:
        raise UserError("There is nothing to mark.", "Choose tasks or images.")
    rows = workspace.project().tasks.train.rows
    known = {"task": set(rows["task_id"]), "image": set(rows["image_id"])}
    for item in every:
        if item.kind == "instance":
            key = (item.task_id, item.role, item.image_id)
            found = bool(((rows["task_id"] == key[0]) & (rows["role"] == key[1]) & (rows["image_id"] == key[2])).any())
        else:
            found = (item.task_id or item.image_id) in known[item.kind]
        if not found:
            raise UserError(f"{item.task_id or item.image_id!r} is not in the training tasks.", "Check the id.")
    workspace.decisions.append([Decision(i, verdict, reason=reason, reviewer=reviewer, source=source) for i in every])
