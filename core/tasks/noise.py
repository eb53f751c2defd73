"""Inject label noise for practice and evaluation; the truth is recorded separately and the engine never sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.runtime.errors import UserError
from core.tasks.settings import PRESETS
from core.tasks.tasklist import KEY, TaskList, from_rows

KINDS = ("none", "tasks", "images", "lookalike")


@dataclass(frozen=True)
class Noise:
    """A specification of the label noise to inject.

    Attributes:
        kind: ``tasks`` flips labels within a share of the tasks, after the tasks are drawn; ``images``
            mislabels a share of the images uniformly before tasks are drawn; ``lookalike`` mislabels a share
            of the images as the class whose mean image is nearest to them.
        share: Share of the tasks or of the images.
        labels: For ``tasks``: share of the labels flipped in each of those tasks.
    """

    kind: str = "none"
    share: float = 0.0
    labels: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Noise:
        """Parse ``none``, ``tasks:SHARE:LABELS``, ``images:SHARE``, ``lookalike:SHARE`` or the name of a preset.

        Raises:
            UserError: the text is anything else, or a share is outside (0, 1].
        """
        kind, *numbers = PRESETS.get(text, text).split(":")
        expected = {"none": 0, "tasks": 2}.get(kind, 1)
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = [-1.0]
        if kind not in KINDS or len(numbers) != expected or not all(0 < value <= 1 for value in values):
            raise UserError(
                f"{text!r} is not a valid label noise.",
                "Use none, tasks:SHARE:LABELS, images:SHARE or lookalike:SHARE with shares above 0 and up to 1, "
                f"or one of {', '.join(PRESETS)}.",
            )
        return cls(kind, *values)


def mislabel_images(
    images: ImageSet, positions: np.ndarray, noise: Noise, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Mislabel a share of the images at ``positions``.

    Returns:
        The given labels ``(n,)`` of the whole image set, and the truth: image_id, given, true (class names).

    Raises:
        UserError: the images at ``positions`` all belong to one class.
    """
    given = images.labels.copy()
    chosen = np.sort(rng.choice(positions, round(noise.share * positions.size), replace=False))
    classes = np.unique(images.labels[positions])
    if classes.size < 2:
        raise UserError("Images of a single class cannot be mislabelled.", "Hold out fewer classes.")
    true = np.searchsorted(classes, images.labels[chosen])
    if noise.kind == "images":
        shift = rng.integers(1, classes.size, chosen.size)
        given[chosen] = classes[(true + shift) % classes.size]
    else:
        distance = class_distances(images, positions, classes, chosen)
        distance[np.arange(chosen.size), true] = np.inf
        given[chosen] = classes[distance.argmin(1)]
    names = np.array(images.class_names, dtype=object)
    truth = {"image_id": images.ids[chosen], "given": names[given[chosen]], "true": names[images.labels[chosen]]}
    return given, pd.DataFrame(truth)


def class_distances(images: ImageSet, positions: np.ndarray, classes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return squared distances ``(len(chosen), len(classes))`` of images to the classes' mean images at ``positions``.

    The images may exceed the memory, so they are read class by class and in blocks.
    """

    def pixels(block: np.ndarray) -> np.ndarray:
        return images.images[block].reshape(len(block), -1).astype(np.float32)

    labels = images.labels[positions]
    means = np.stack([pixels(positions[labels == c]).mean(0) for c in classes]).astype(np.float64)
    blocks = (pixels(block).astype(np.float64) for block in np.array_split(chosen, max(1, len(chosen) // 256)))
    squared = (means**2).sum(1)
    return np.concatenate([(x**2).sum(1, keepdims=True) - 2 * x @ means.T + squared for x in blocks])


def flip_labels(tasks: TaskList, noise: Noise, rng: np.random.Generator) -> tuple[TaskList, pd.DataFrame]:
    """Flip ``noise.labels`` of the labels, support and query, in ``noise.share`` of the tasks.

    A flipped row gets another label of its task, drawn uniformly. At least one correct support label of every class of
    a task is left unchanged, so that each class still has a support image.

    Returns:
        The noisy tasks, and the truth: task_id, role, image_id, given, true (class names).
    """
    rows = tasks.rows.copy()
    noisy_tasks = rng.choice(tasks.task_ids, round(noise.share * len(tasks)), replace=False)
    true = rows["class"].to_numpy().copy()
    labels = rows["label"].to_numpy().copy()
    classes = rows["class"].to_numpy().copy()
    for task_id in noisy_tasks:
        members = np.flatnonzero(rows["task_id"] == task_id)
        class_of = dict(zip(labels[members], classes[members], strict=True))
        support = members[(rows["role"].iloc[members] == "support").to_numpy()]
        unchanged = [int(rng.choice(support[labels[support] == label])) for label in class_of]
        candidates = np.setdiff1d(members, unchanged)
        flipped = rng.choice(candidates, min(round(noise.labels * members.size), candidates.size), replace=False)
        labels[flipped] = (labels[flipped] + rng.integers(1, tasks.ways, flipped.size)) % tasks.ways
        classes[flipped] = [class_of[label] for label in labels[flipped]]
    rows["label"], rows["class"] = labels, classes
    changed = rows["class"].to_numpy() != true
    truth = rows.loc[changed, KEY].assign(given=classes[changed], true=true[changed]).reset_index(drop=True)
    return from_rows(rows, source="noisy tasks"), truth
