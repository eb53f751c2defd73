"""Define a set of changes (removals and relabels) and apply it to a task list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from core.runtime.errors import UserError, shown
from core.runtime.hashing import content_hash
from core.tasks.tasklist import KEY, TaskList

Instance = tuple[str, str, str]
"""One image in one role of one task: a task id, a role and an image id."""


@dataclass(frozen=True)
class ChangedColumns:
    """A set of task-table columns after a set of changes.

    Attributes:
        weights: ``(rows,)``; 0 where a row is removed.
        labels: ``(rows,)`` int64, within the task.
        classes: ``(rows,)``, the class that the label stands for.
    """

    weights: np.ndarray
    labels: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Changes:
    """A set of removals and relabels.

    Removing a task overrides a decision on an instance, which overrides one on the image. A row is removed if its task
    does not contain the new class. It is also removed if relabelling would leave its old class without a support row of
    positive weight, because a task needs support rows of every class; such a row keeps its old label.

    Attributes:
        images: Image ids; an image is removed from every task it occurs in.
        relabelled_images: (image id, new class).
        relabelled_instances: (task id, role, image id, new class).

    Raises:
        UserError: something is both removed and relabelled, or relabelled twice.
    """

    tasks: frozenset[str] = field(default_factory=frozenset)
    images: frozenset[str] = field(default_factory=frozenset)
    instances: frozenset[Instance] = field(default_factory=frozenset)
    relabelled_images: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    relabelled_instances: frozenset[tuple[str, str, str, str]] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        images = [image for image, _ in self.relabelled_images]
        instances = ["/".join(key) for *key, _ in self.relabelled_instances]
        removed_instances = {"/".join(key) for key in self.instances}
        for kind, relabelled, removed in (("image", images, self.images), ("instance", instances, removed_instances)):
            if twice := sorted(name for name, count in Counter(relabelled).items() if count > 1):
                raise UserError(f"The {kind} {twice[0]!r} has two new classes.", "Choose one of them.")
            if both := sorted(removed & set(relabelled)):
                raise UserError(f"The {kind} {both[0]!r} is both removed and relabelled.", "Choose one of the two.")

    def __len__(self) -> int:
        return sum(len(getattr(self, field.name)) for field in fields(self))

    def check_not_empty(self) -> None:
        """Raise UserError if nothing is removed or relabelled."""
        if not len(self):
            raise UserError("There are no changes.", "Remove or relabel tasks or images first.")

    @property
    def hash(self) -> str:
        """Return a hash of the content; relabels are hashed only if present, so that older saved results stay valid."""
        relabelled = sorted(self.relabelled_images), sorted(self.relabelled_instances)
        return content_hash(
            sorted(self.tasks), sorted(self.images), sorted(self.instances), *(relabelled if any(relabelled) else ())
        )

    @property
    def removed(self) -> dict[str, int]:
        """Return the number of removed tasks, images and instances."""
        return {kind: len(getattr(self, kind)) for kind in ("tasks", "images", "instances")}

    @property
    def relabelled(self) -> dict[str, int]:
        """Return the number of relabelled images and instances."""
        return {"images": len(self.relabelled_images), "instances": len(self.relabelled_instances)}

    @property
    def words(self) -> str:
        """Return a summary such as ``1 task, 4 images removed, 2 images relabelled``, or ``nothing`` if empty."""
        parts = []
        for verb, counts in (("removed", self.removed), ("relabelled", self.relabelled)):
            items = [f"{count:,} {kind if count > 1 else kind[:-1]}" for kind, count in counts.items() if count]
            parts += [f"{', '.join(items)} {verb}"] if items else []
        return ", ".join(parts) or "nothing"

    def to_json(self) -> dict[str, list[Any]]:
        """Return the changes as sorted JSON-serialisable lists, which :meth:`from_json` reads."""
        return {field.name: sorted(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Changes:
        """Build the changes from the output of :meth:`to_json`; raise UserError if the input has another format."""
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            name = next(iter(error.errors()[0]["loc"]), "changes")
            raise UserError(f"{name!r} is not a list of changes.", "Restore the file or save the set again.") from error

    @classmethod
    def named(cls, tasks: Sequence[str] = (), images: Sequence[str] = (), relabel: Sequence[str] = ()) -> Changes:
        """Build the changes from ids of tasks and images to remove, and ``IMAGE=CLASS`` (last ``=``) to relabel.

        Raises:
            UserError: a relabel has no image or no class, or one text is given instead of a list.
        """
        tasks, images, relabel = (
            id_list(name, given) for name, given in (("tasks", tasks), ("images", images), ("relabel", relabel))
        )
        pairs = []
        for text in relabel:
            image, _, name = text.rpartition("=")
            if not image or not name:
                raise UserError(f"{text!r} does not name an image and its new class.", "Use IMAGE=CLASS.")
            pairs.append((image, name))
        return cls(frozenset(tasks), frozenset(images), relabelled_images=frozenset(pairs))

    def apply(self, tasks: TaskList) -> ChangedColumns:
        """Return the columns of the task table after the changes.

        Raises:
            UserError: a task, image or instance of the set is not in the task list.
        """
        rows = tasks.rows
        keys = pd.MultiIndex.from_frame(rows[KEY])
        instances = self.instances | {(task, role, image) for task, role, image, _ in self.relabelled_instances}
        images = self.images | {image for image, _ in self.relabelled_images}
        _check_known("task", self.tasks, rows["task_id"])
        _check_known("image", images, rows["image_id"])
        _check_known("instance", instances, keys if instances else ())
        is_removed = rows["image_id"].isin(self.images).to_numpy(copy=True)
        new_classes = rows["image_id"].map(dict(self.relabelled_images)).to_numpy(object, copy=True)
        if instances:  # instances override images
            is_removed[keys.isin(list(instances))] = False
        if self.instances:
            is_removed[keys.isin(list(self.instances))] = True  # a row of weight 0 is not relabelled
        if self.relabelled_instances:
            changed, classes = zip(*(((*key,), name) for *key, name in self.relabelled_instances), strict=True)
            new_classes[keys.get_indexer(pd.MultiIndex.from_tuples(changed))] = classes
        is_removed |= rows["task_id"].isin(self.tasks).to_numpy()
        return _relabel(rows, np.where(is_removed, 0.0, rows["weight"].to_numpy()), new_classes)


def id_list(name: str, ids: Iterable[str]) -> list[str]:
    """Return the ids that a user gave as an argument of the Python API.

    Raises:
        UserError: they are one text, whose letters would be taken for ids, or not texts.
    """
    if isinstance(ids, Iterable) and not isinstance(ids, str):
        listed = list(ids)
        if all(isinstance(one, str) for one in listed):
            return listed
    raise UserError(f"{name} must be a list of texts, not {shown(ids)}.", f"Example: {_EXAMPLES[name]}.")


_EXAMPLES = {"tasks": "tasks=['t0']", "images": "images=['mnist5k-0007']", "relabel": "relabel=['mnist5k-0007=3']"}


def _check_known(kind: str, ids: Iterable[Any], known: Iterable[Any]) -> None:
    ids = set(ids)
    if ids and (unknown := sorted(ids - set(known))):
        raise UserError(f"The {kind} {unknown[0]!r} is not in the task list.", "Check what you remove or relabel.")


def _relabel(rows: pd.DataFrame, weights: np.ndarray, new_classes: np.ndarray) -> ChangedColumns:
    """Relabel rows whose task has their new class, and set the weight of the others to 0.

    Args:
        weights: ``(rows,)``, modified in place.
        new_classes: ``(rows,)``, class names, or NaN for rows that are not relabelled.
    """
    labels, classes = rows["label"].to_numpy(), rows["class"].to_numpy()
    new_labels = labels.copy()
    relabelled = np.flatnonzero(pd.notna(new_classes))
    relabelled = relabelled[(weights[relabelled] > 0) & (new_classes[relabelled] != classes[relabelled])]
    if not len(relabelled):
        return ChangedColumns(weights, new_labels, classes.copy())
    task_of, _ = pd.factorize(rows["task_id"])  # ascending, because the rows of a task are contiguous
    known = pd.Series(labels, pd.MultiIndex.from_arrays([task_of, classes])).groupby(level=[0, 1]).first()
    found = known.index.get_indexer(pd.MultiIndex.from_arrays([task_of[relabelled], new_classes[relabelled]]))
    weights[relabelled[found < 0]] = 0.0
    new_labels[relabelled[found >= 0]] = known.to_numpy()[found[found >= 0]]
    support = (rows["role"] == "support").to_numpy()
    for task in np.unique(task_of[relabelled[support[relabelled]]]):
        members = np.arange(*np.searchsorted(task_of, [task, task + 1]))
        _keep_every_class(members[support[members]], weights, labels, new_labels)
    return ChangedColumns(weights, new_labels, np.where(new_labels == labels, classes, new_classes))


def _keep_every_class(support: np.ndarray, weights: np.ndarray, labels: np.ndarray, new_labels: np.ndarray) -> None:
    """Undo and remove relabelled rows that leave a class of one task without support rows of positive weight.

    If several rows leave a class, the last one is undone. That may empty the class it was moved to, so this is repeated
    until nothing changes.
    """
    restored: set[int] = set()
    while True:
        left = sorted(set(labels[support[new_labels[support] != labels[support]]]) - restored)
        empty = [label for label in left if not (weights[support[new_labels[support] == label]] > 0).any()]
        if not empty:
            return
        row = support[(labels[support] == empty[0]) & (new_labels[support] != empty[0])][-1]
        new_labels[row], weights[row] = labels[row], 0.0
        restored.add(empty[0])


def check_tasks_remain(remain: bool) -> None:
    """Raise UserError if no task has a query row of positive weight after the changes."""
    if not remain:
        raise UserError("The changes remove every task.", "Remove less.")


def cleaned(tasks: TaskList, changes: Changes, *, drop_rows: bool = False) -> TaskList:
    """Return the task list with ``changes`` applied.

    Tasks without a query row of positive weight are dropped. Other removed rows stay with weight 0, which is exactly
    what the edits measure. With ``drop_rows`` they are dropped from the table, for tools that do not support weights
    (means over the remaining rows then have smaller denominators).

    Raises:
        UserError: no task would remain, or with ``drop_rows`` a task would lose a whole class.
    """
    changed = changes.apply(tasks)
    classes = pd.Series(changed.classes, tasks.rows.index).astype(tasks.rows["class"].dtype)
    rows = tasks.rows.assign(weight=changed.weights, label=changed.labels, **{"class": classes})
    with_query = rows.loc[(rows["role"] == "query") & (rows["weight"] > 0), "task_id"]
    rows = rows[rows["task_id"].isin(with_query)]
    check_tasks_remain(not rows.empty)
    if drop_rows:
        rows = rows[rows["weight"] > 0]
        support = rows[rows["role"] == "support"].groupby("task_id")["label"].nunique()
        support = support.reindex(rows["task_id"].unique(), fill_value=0)
        for task_id in support.index[support < tasks.ways]:
            raise UserError(
                f"Task {task_id!r} would lose all support images of a class.",
                "Remove the whole task too, or keep removed rows with weight 0.",
            )
    return TaskList(rows.reset_index(drop=True))
