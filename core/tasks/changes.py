"""A set of changes (what is removed, what is relabelled), and what a task list looks like with it."""

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
"""Task id, role, image id."""


@dataclass(frozen=True)
class Applied:
    """The columns of the task table that a set of changes sets anew.

    Attributes:
        weights: ``(rows,)``; 0 where a row is removed.
        labels: ``(rows,)`` int64, within the task.
        classes: ``(rows,)`` of the class that the label stands for.
    """

    weights: np.ndarray
    labels: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Changes:
    """What is to be removed and relabelled.

    A removal of the task beats a decision on an instance, which beats one on the image. A new class that a task does
    not have removes the row there; so does one whose old class would lose its last support row of positive weight by
    it, as a task needs support rows of every class (the row then keeps its old label).

    Attributes:
        tasks: Task ids.
        images: Image ids; an image is removed from every task it occurs in.
        instances: (task id, role, image id): one image in one role of one task.
        relabelled_images: (image id, new class).
        relabelled_instances: (task id, role, image id, new class).

    Raises:
        UserError: something is to be both removed and relabelled, or relabelled twice.
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
        """Names this content; without relabels as before there were any, so that kept results are found again."""
        relabelled = sorted(self.relabelled_images), sorted(self.relabelled_instances)
        return content_hash(
            sorted(self.tasks), sorted(self.images), sorted(self.instances), *(relabelled if any(relabelled) else ())
        )

    @property
    def removed(self) -> dict[str, int]:
        """How many tasks, images and instances are removed."""
        return {kind: len(getattr(self, kind)) for kind in ("tasks", "images", "instances")}

    @property
    def relabelled(self) -> dict[str, int]:
        """How many images and instances are relabelled."""
        return {"images": len(self.relabelled_images), "instances": len(self.relabelled_instances)}

    @property
    def words(self) -> str:
        """``1 task, 4 images removed, 2 images relabelled``; ``nothing`` where nothing is."""
        parts = []
        for done, numbers in (("removed", self.removed), ("relabelled", self.relabelled)):
            named = [f"{number:,} {kind if number > 1 else kind[:-1]}" for kind, number in numbers.items() if number]
            parts += [f"{', '.join(named)} {done}"] if named else []
        return ", ".join(parts) or "nothing"

    def described(self) -> dict[str, list[Any]]:
        """As JSON takes it, sorted; :meth:`from_described` reads it."""
        names = ("tasks", "images", "instances", "relabelled_images", "relabelled_instances")
        return {name: [_listed(one) for one in sorted(getattr(self, name))] for name in names}

    @classmethod
    def from_described(cls, described: Mapping[str, Any]) -> Changes:
        """From what :meth:`described` gave.

        Raises:
            UserError: it is something else.
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
        """From ids of tasks and images to remove, and ``IMAGE=CLASS`` to relabel; the last ``=`` counts.

        Raises:
            UserError: a relabel names no image or no class.
        """
        pairs = []
        for text in relabel:
            image, _, name = text.rpartition("=")
            if not image or not name:
                raise UserError(f"{text!r} does not say which image gets which class.", "Use IMAGE=CLASS.")
            pairs.append((image, name))
        return cls(frozenset(tasks), frozenset(images), relabelled_images=frozenset(pairs))

    def applied(self, tasks: TaskList) -> Applied:
        """The columns of the task table after the changes.

        Raises:
            UserError: something in the set is not in the task list.
        """
        rows = tasks.rows
        keys = pd.MultiIndex.from_frame(rows[KEY])
        instances = self.instances | {(task, role, image) for task, role, image, _ in self.relabelled_instances}
        images = self.images | {image for image, _ in self.relabelled_images}
        _refuse_unknown("task", self.tasks, rows["task_id"])
        _refuse_unknown("image", images, rows["image_id"])
        _refuse_unknown("instance", instances, keys if instances else ())
        by_image = rows["image_id"].isin(self.images).to_numpy(copy=True)
        new = np.full(len(rows), None, dtype=object)
        if self.relabelled_images:
            named = dict(self.relabelled_images)
            at = np.flatnonzero(rows["image_id"].isin(named))
            new[at] = rows["image_id"].iloc[at].map(named)
        if instances:  # they beat the images
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
        """``(rows,)``: the weights of the task table after the changes."""
        return self.applied(tasks).weights


def _listed(one: Any) -> Any:
    return list(one) if isinstance(one, tuple) else one


def _is_shaped(one: Any, length: int) -> bool:
    if not length:
        return isinstance(one, str)
    return isinstance(one, list) and len(one) == length and all(isinstance(part, str) for part in one)


def _refuse_unknown(kind: str, wanted: Iterable[Any], known: Iterable[Any]) -> None:
    wanted = set(wanted)
    if wanted and (unknown := sorted(wanted - set(known))):
        raise UserError(f"The {kind} {unknown[0]!r} is not in the task list.", "Check what is removed or relabelled.")


def _relabelled(rows: pd.DataFrame, weights: np.ndarray, new: np.ndarray) -> Applied:
    """Give rows a new class where their task has it, else weight 0; ``new`` is ``(rows,)`` of class names or None."""
    labels, classes = rows["label"].to_numpy(), rows["class"].to_numpy()
    weights, after, names = weights.copy(), labels.copy(), classes.copy()
    asked = np.flatnonzero(pd.notna(new))
    asked = asked[(weights[asked] > 0) & (new[asked] != classes[asked])]
    if not len(asked):
        return Applied(weights, after, names)
    task_of, _ = pd.factorize(rows["task_id"])  # rows of a task stand together, so that these ascend
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
    """Take back relabels that leave a class of one task without support rows of positive weight: such a row is removed.

    Of several rows that leave a class together the last one is taken back. That may leave the class it went to without
    one, so it goes on until nothing changes.
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
    """The task list with ``changes``.

    Tasks without any query row of positive weight are left out whole. Other removed rows stay with weight 0,
    which is exactly what the edits measure; with ``drop_rows`` they are taken out of the table, for tools that
    know no weights (means over what is left then have smaller denominators).

    Raises:
        UserError: nothing would be left, or with ``drop_rows`` a task would lose a whole class.
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
