"""Check that decisions are about items and classes that exist."""

from __future__ import annotations

from collections.abc import Sequence

from core.data import ImageSet
from core.decisions.records import Item
from core.runtime.errors import UserError
from core.tasks.tasklist import KEY, TaskList


def class_number(images: ImageSet, name: str) -> int:
    """Return the label of a class.

    Raises:
        UserError: there is no such class.
    """
    try:
        return images.class_names.index(name)
    except ValueError:
        examples = ", ".join(images.class_names[:5])
        raise UserError(f"{images.name} has no class {name!r}.", f"Its classes are, for example, {examples}.") from None


def check_known(tasks: TaskList, items: Sequence[Item]) -> None:
    """Raise UserError if an item is not in the training tasks."""
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
