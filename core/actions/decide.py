"""Decisions about tasks, instances and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.data import ImageSet
from core.decisions.log import Decision, Item, Operation, Result, Verdict
from core.runtime.errors import UserError
from core.tasks.tasklist import KEY, TaskList
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
    instances: Sequence[tuple[str, str, str]] = (),
    verdict: Verdict = "remove",
    label: str | None = None,
    reason: str = "",
    reviewer: str = "",
    source: str = "",
    saw: int | None = None,
    token: str = "",
) -> Result:
    """Append one group of decisions, all with the same verdict, to the log of the workspace.

    Args:
        workspace: Where to.
        items: What is decided on, together with ``tasks``, ``images`` and ``instances``.
        tasks: Task ids.
        images: Image ids.
        instances: (task id, role, image id).
        verdict: What is decided.
        label: Name of the new class; for the verdict "relabel" only.
        reason: Kept with each decision, as are ``reviewer`` and ``source``.
        reviewer: Who decides.
        source: The ranking or run that brought the items up.
        saw: See :class:`core.decisions.log.Operation`, as for ``token``.
        token: Empty, or a name of this act.

    Raises:
        UserError: there is nothing to mark, an item is not in the training tasks, or the class is unknown.
    """
    every = [
        *items,
        *(Item("task", task_id=i) for i in tasks),
        *(Item("image", image_id=i) for i in images),
        *(Item("instance", task_id, role, image_id) for task_id, role, image_id in instances),
    ]
    if not every:
        raise UserError("There is nothing to mark.", "Choose tasks or images.")
    project = workspace.project()
    number = None if label is None else class_number(project.images, label)
    check_known(project.tasks.train, every)
    decisions = tuple(Decision(item, verdict, number, reason, reviewer, source) for item in every)
    return workspace.decisions.submit([Operation("decide", reviewer, token, decisions, saw)])[0]


def class_number(images: ImageSet, name: str) -> int:
    """The label of a class.

    Raises:
        UserError: there is no such class.
    """
    try:
        return images.class_names.index(name)
    except ValueError:
        some = ", ".join(images.class_names[:5])
        raise UserError(f"There is no class {name!r}.", f"Classes are named like {some}.") from None


def check_known(tasks: TaskList, items: Sequence[Item]) -> None:
    """Raise UserError if an item is not in the tasks."""
    kinds = {item.kind for item in items}
    known: dict[str, set[tuple[str, ...]]] = {}
    if "task" in kinds:
        known["task"] = {(task_id, "", "") for task_id in tasks.rows["task_id"]}
    if "image" in kinds:
        known["image"] = {("", "", image_id) for image_id in tasks.rows["image_id"]}
    if "instance" in kinds:
        known["instance"] = set(zip(*(tasks.rows[column] for column in KEY), strict=True))
    for item in items:
        if (item.task_id, item.role, item.image_id) not in known[item.kind]:
            named = "/".join(filter(None, (item.task_id, item.role, item.image_id)))
            raise UserError(f"{named!r} is not in the training tasks.", "Check the id.")


def suggestions_of_task(workspace: Workspace, queue: Run, task_id: str, least_probability: float) -> list[Decision]:
    """Relabel decisions for every row of a task for which a queue suggests another class.

    A suggestion for an image as a whole is taken for each row that shows it; one for the row itself comes first.
    Each decision is about one row of this task, whatever the other tasks say of the image.

    Args:
        workspace: Where the task is.
        queue: A run of kind "queue".
        task_id: The task.
        least_probability: Least probability that the suggested class is right; one that is not known counts as 0.

    Raises:
        UserError: there is no such task.
    """
    project = workspace.project()
    rows = project.tasks.train.select([task_id]).rows
    found = queue.table("items.parquet")
    found = found[
        found["image_id"].isin(rows["image_id"]) & found["suggested_probability"].fillna(0).ge(least_probability)
    ]
    whole, single = found[found["level"] == "image"], found[found["level"] == "instance"]
    single = single[single["task_id"] == task_id]
    suggested: dict[tuple[str, str], str] = {
        (role, image_id): name
        for role in ("support", "query")
        for image_id, name in zip(whole["image_id"], whole["suggested"], strict=True)
    }
    suggested |= dict(zip(zip(single["role"], single["image_id"], strict=True), single["suggested"], strict=True))
    decisions = []
    for role, image_id, given in zip(rows["role"], rows["image_id"], rows["class"], strict=True):
        name = suggested.get((role, image_id), given)
        if name != given:
            number = class_number(project.images, name)
            item = Item("instance", task_id, role, image_id)
            decisions.append(Decision(item, "relabel", number, "as suggested", source=queue.id))
    return decisions


def undecided(decisions: Sequence[Decision], current: Mapping[Item, Decision]) -> list[Decision]:
    """Of decisions about rows of tasks, those on which nobody has firmly decided: on the row, nor on its image."""

    def open_(item: Item) -> bool:
        found = current.get(item), current.get(Item("image", image_id=item.image_id))
        return not any(decision and decision.is_final for decision in found)

    return [decision for decision in decisions if open_(decision.item)]


def first_of_queue(queue: Run, count: int) -> list[tuple[Item, str]]:
    """The ``count`` most suspicious items of a queue, and the class that it suggests for each.

    Raises:
        UserError: the queue has fewer.
    """
    table = queue.table("items.parquet").sort_values("rank", kind="stable")
    if count > len(table):
        raise UserError(f"There are only {len(table)} items in the queue.", "Ask for fewer.")
    chosen = table.head(count)
    columns = [chosen[name] for name in ("level", "task_id", "role", "image_id", "suggested")]
    return [
        (Item("image", image_id=image_id) if level == "image" else Item("instance", task_id, role, image_id), suggested)
        for level, task_id, role, image_id, suggested in zip(*columns, strict=True)
    ]
