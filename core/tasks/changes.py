"""Define a set of changes (removals and relabels) and apply it to a task list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from core.runtime.errors import UserError
from core.runtime.files import content_hash
from core.tasks.tasklist import KEY, TaskList

Instance = tuple[str, str, str]
"""A task id, a role and an image id."""


@dataclass(frozen=True)
class Applied:
    """A set of task-table columns that a set of changes replaces.

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
        tasks: Task ids.
        images: Image ids; an image is removed from every task it occurs in.
        instances: (task id, role, image id): one image in one role of one task.
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
        instances = ["/".join(where) for *where, _ in self.relabelled_instances]
        removed = {"image": self.images, "instance": {"/".join(where) for where in self.instances}}
        for kind, names in (("image", images), ("instance", instances)):
            if twice := sorted(name for name, often in Counter(names).items() if often > 1):
                raise UserError(f"The {kind} {twice[0]!r} has two new classes.", "Choose one of them.")
            if both := sorted(removed[kind] & set(names)):
                raise UserError(f"The {kind} {both[0]!r} is both removed and relabelled.", "Choose one of the two.")

    def __len__(self) -> int:
        relabelled = len(self.relabelled_images) + len(self.relabelled_instances)
        return len(self.tasks) + len(self.images) + len(self.instances) + relabelled

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
        for done, numbers in (("removed", self.removed), ("relabelled", self.relabelled)):
            named = [f"{number:,} {kind if number > 1 else kind[:-1]}" for kind, number in numbers.items() if number]
            parts += [f"{', '.join(named)} {done}"] if named else []
        return ", ".join(parts) or "nothing"

    def described(self) -> dict[str, list[Any]]:
        """Return the changes as sorted JSON-serialisable lists, which :meth:`from_described` reads."""
        names = ("tasks", "images", "instances", "relabelled_images", "relabelled_instances")
        return {name: [_listed(one) for one in sorted(getattr(self, name))] for name in names}

    @classmethod
    def from_described(cls, described: Mapping[str, Any]) -> Changes:
        """Build the changes from the output of :meth:`described`.

        Raises:
            UserError: the input has another format.
        """
        shapes = {"tasks": 0, "images": 0, "instances": 3, "relabelled_images": 2, "relabelled_instances": 4}
        read: dict[str, Any] = {}
        for name, length in shapes.items():
            given = described.get(name, [])
            if not isinstance(given, list) or not all(_is_shaped(one, length) for one in given):
                raise UserError(f"{name!r} is not a list of changes.", "Restore the file or save the set again.")
            read[name] = frozenset(tuple(one) if length else one for one in given)
        return cls(**read)

    @classmethod
    def named(cls, tasks: Sequence[str] = (), images: Sequence[str] = (), relabel: Sequence[str] = ()) -> Changes:
        """Build the changes from ids of tasks and images to remove, and ``IMAGE=CLASS`` (last ``=``) to relabel.

        Raises:
            UserError: a relabel has no image or no class.
        """
        pairs = []
        for text in relabel:
            image, _, name = text.rpartition("=")
            if not image or not name:
                raise UserError(f"{text!r} does not say which image gets which class.", "Use IMAGE=CLASS.")
            pairs.append((image, name))
        return cls(frozenset(tasks), frozenset(images), relabelled_images=frozenset(pairs))

    def applied(self, tasks: TaskList) -> Applied:
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
        by_image = rows["image_id"].isin(self.images).to_numpy(copy=True)
        new = np.full(len(rows), None, dtype=object)
        if self.relabelled_images:
            named = dict(self.relabelled_images)
            at = np.flatnonzero(rows["image_id"].isin(named))
            new[at] = rows["image_id"].iloc[at].map(named)
        if instances:  # instances override images
            by_image[keys.isin(list(instances))] = False
            new[keys.isin(list(self.instances))] = None
        if self.relabelled_instances:
            where, classes = zip(*(((*key,), name) for *key, name in self.relabelled_instances), strict=True)
            new[keys.get_indexer(pd.MultiIndex.from_tuples(where))] = classes
        gone = rows["task_id"].isin(self.tasks).to_numpy() | by_image
        if self.instances:
            gone |= keys.isin(list(self.instances))
        weights = np.where(gone, 0.0, rows["weight"].to_numpy())
        return _relabelled(rows, weights, new)

    def weights(self, tasks: TaskList) -> np.ndarray:
        """Return the weights ``(rows,)`` of the task table after the changes."""
        return self.applied(tasks).weights


def _listed(one: Any) -> Any:
    return list(one) if isinstance(one, tuple) else one


def _is_shaped(one: Any, length: int) -> bool:
    if not length:
        return isinstance(one, str)
    return isinstance(one, list) and len(one) == length and all(isinstance(part, str) for part in one)


def _check_known(kind: str, wanted: Iterable[Any], known: Iterable[Any]) -> None:
    wanted = set(wanted)
    if wanted and (unknown := sorted(wanted - set(known))):
        raise UserError(f"The {kind} {unknown[0]!r} is not in the task list.", "Check what is removed or relabelled.")


def _relabelled(rows: pd.DataFrame, weights: np.ndarray, new: np.ndarray) -> Applied:
    """Relabel rows to ``new`` if their task has the class, else set weight 0; ``new`` is ``(rows,)``, names or None."""
    labels, classes = rows["label"].to_numpy(), rows["class"].to_numpy()
    weights, after, names = weights.copy(), labels.copy(), classes.copy()
    asked = np.flatnonzero(pd.notna(new))
    asked = asked[(weights[asked] > 0) & (new[asked] != classes[asked])]
    if not len(asked):
        return Applied(weights, after, names)
    task_of, _ = pd.factorize(rows["task_id"])  # ascending, because the rows of a task are contiguous
    known = pd.DataFrame({"task": task_of, "class": classes, "label": labels}).drop_duplicates(["task", "class"])
    label_of = {(task, name): label for task, name, label in known.itertuples(index=False)}
    for row in asked:
        label = label_of.get((task_of[row], new[row]))
        if label is None:
            weights[row] = 0.0
        else:
            after[row], names[row] = label, new[row]
    support = (rows["role"] == "support").to_numpy()
    for task in np.unique(task_of[asked[support[asked]]]):
        here = np.arange(*np.searchsorted(task_of, [task, task + 1]))
        _keep_every_class(here[support[here]], weights, labels, after)
    back = after == labels
    names[back] = classes[back]
    return Applied(weights, after, names)


def _keep_every_class(support: np.ndarray, weights: np.ndarray, labels: np.ndarray, after: np.ndarray) -> None:
    """Undo and remove relabelled rows that leave a class of one task without support rows of positive weight.

    If several rows leave a class, the last one is undone. That may empty the class it was moved to, so this is repeated
    until nothing changes.
    """
    settled: set[int] = set()
    while True:
        left = sorted(set(labels[support[after[support] != labels[support]]]) - settled)
        bare = [label for label in left if not (weights[support[after[support] == label]] > 0).any()]
        if not bare:
            return
        row = support[(labels[support] == bare[0]) & (after[support] != bare[0])][-1]
        after[row], weights[row] = labels[row], 0.0
        settled.add(bare[0])


def cleaned(tasks: TaskList, changes: Changes, *, drop_rows: bool = False) -> TaskList:
    """Return the task list with ``changes`` applied.

    Tasks without a query row of positive weight are dropped. Other removed rows stay with weight 0, which is exactly
    what the edits measure. With ``drop_rows`` they are dropped from the table, for tools that do not support weights
    (means over the remaining rows then have smaller denominators).

    Raises:
        UserError: no task would remain, or with ``drop_rows`` a task would lose a whole class.
    """
    after = changes.applied(tasks)
    classes = pd.Series(after.classes, tasks.rows.index).astype(tasks.rows["class"].dtype)
    rows = tasks.rows.assign(weight=after.weights, label=after.labels, **{"class": classes})
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
