"""Check that decisions are about items and classes that exist."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import get_args

from core.data import ImageSet
from core.decisions.records import Item, Kind
from core.runtime.errors import UserError
from core.tasks.tasklist import KEY, TaskList


def class_number(images: ImageSet, name: str) -> int:
    """Return the label of a class; raise UserError if there is no such class."""
    if name not in images.class_names:
        examples = ", ".join(images.class_names[:5])
        raise UserError(f"{images.name} has no class {name!r}.", f"Its classes are, for example, {examples}.")
    return images.class_names.index(name)


def class_name(names: Sequence[str], label: int | None) -> str:
    """Return the name of a class; raise UserError if there is no such class."""
    if label is None or not 0 <= label < len(names):
        raise UserError(f"There is no class number {label}.", "Undo the relabelling, or choose an existing class.")
    return str(names[label])


def known_keys(tasks: TaskList, kinds: Collection[str] = get_args(Kind)) -> set[tuple[str, ...]]:
    """Return (kind, task_id, role, image_id) of every item of these kinds in the training tasks."""
    rows, known = tasks.rows, set[tuple[str, ...]]()
    if "task" in kinds:
        known |= {("task", task_id, "", "") for task_id in rows["task_id"].unique()}
    if "image" in kinds:
        known |= {("image", "", "", image_id) for image_id in rows["image_id"].unique()}
    if "instance" in kinds:
        known |= {("instance", *key) for key in rows[KEY].itertuples(index=False, name=None)}
    return known


def check_known(tasks: TaskList, items: Sequence[Item]) -> None:
    """Raise UserError if an item is not in the training tasks."""
    known = known_keys(tasks, {item.kind for item in items})
    for item in items:
        if (item.kind, item.task_id, item.role, item.image_id) not in known:
            named = "/".join(filter(None, (item.task_id, item.role, item.image_id)))
            raise UserError(f"{named!r} is not in the training tasks.", "Check the id.")
