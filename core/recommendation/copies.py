"""Copies of the data with injected label noise, by presets of :data:`core.tasks.settings.PRESETS`.

A copy consists of tasks that are drawn anew from the images with their given classes; the model stays as it is. The
given tasks cannot serve as the clean part of a copy, as they may be noisy themselves. An image has the class that more
than half of its rows give it; images without one are left out, so that labels flipped within tasks do not count as
correct.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.review.image_labels import image_label_pairs
from core.review.scoring import TaskShape, task_shape
from core.runtime.errors import UserError
from core.tasks.noise import Noise, flip_labels, mislabel_images
from core.tasks.sampling import Pool, pool_of, sample_tasks
from core.tasks.tasklist import KEY, TaskList

TASK_PROTOCOLS, IMAGE_PROTOCOLS = ("easy", "hard"), ("image", "confusion")
"""Presets of noise within tasks and of mislabelled images; docs/method.md calls them (a) to (d)."""
PROTOCOLS = {"tasks": TASK_PROTOCOLS, "images": IMAGE_PROTOCOLS, "instances": (*TASK_PROTOCOLS, *IMAGE_PROTOCOLS)}
"""The protocols that each level is measured on."""
TASKS, MISLABELLED_TASKS, SCORED_ROW_TASKS = 100, 50, 20
"""Tasks of a copy with noise within tasks, and at most of one with mislabelled images; of the former, those whose rows
are scored too. Scores of rows take longest, and these tasks have thousands of rows."""


@dataclass(frozen=True, eq=False)
class NoisyTaskCopy:
    """A copy with injected label noise.

    Attributes:
        row_tasks: Ids of the tasks whose rows are scored; noisy ones have their share among them.
        labels: ``(images of the set,)``: class numbers of the image set after the noise, -1 where an image has none;
            None where images are not mislabelled.
        wrong: Ids of the noisy tasks and of the mislabelled images by level, and the keys
            (:data:`core.tasks.tasklist.KEY`) of the rows with wrong labels.
        is_redrawn: Whether the tasks were drawn anew; otherwise they are the given ones.
    """

    protocol: str
    tasks: TaskList
    row_tasks: list[str]
    labels: np.ndarray | None
    wrong: dict[str, frozenset]
    is_redrawn: bool


def first_share(protocol: str, level: str) -> float:
    """Return the share of the items that are checked to say how many injected errors a score finds.

    This is twice the share of errors of the protocol, but for noisy tasks no more than 0.4, the share in ``easy``.
    """
    noise = Noise.parse(protocol)
    if level == "tasks":
        return min(0.4, 2 * noise.share)
    return 2 * noise.share * (noise.labels or 1.0)


def noisy_copy(images: ImageSet, tasks: TaskList, protocol: str, seed: int) -> NoisyTaskCopy:
    """Return a copy of the tasks with label noise of a preset.

    Noise within tasks is injected into the given tasks where they cannot be drawn anew: if their sizes differ, so that
    their losses differ too, or if the classes have too few images.

    Raises:
        UserError: images cannot be mislabelled, because there are too few of them to draw tasks from.
    """
    number = PROTOCOLS["instances"].index(protocol)
    draw_rng, noise_rng = (np.random.default_rng(s) for s in np.random.SeedSequence([seed, number]).spawn(2))
    positions, labels = _given_labels(tasks, images)
    if protocol in TASK_PROTOCOLS:
        try:
            _check_sizes(tasks)
            drawn, is_redrawn = _drawn(images, labels, positions, tasks, TASKS, draw_rng), True
        except UserError:
            chosen = draw_rng.permutation(np.array(tasks.task_ids, dtype=object))[:TASKS]
            drawn, is_redrawn = tasks.select(list(chosen)), False
        return _with_noisy_tasks(drawn, protocol, is_redrawn, noise_rng)
    labelled = replace(images, labels=np.where(labels < 0, images.labels, labels))
    noisy_labels, truth = mislabel_images(labelled, positions, Noise.parse(protocol), noise_rng)
    drawn = _drawn(images, noisy_labels, positions, tasks, min(len(tasks), MISLABELLED_TASKS), draw_rng)
    rows = drawn.rows[drawn.rows["image_id"].isin(truth["image_id"])]
    wrong = {"tasks": frozenset[str](), "images": frozenset(rows["image_id"]), "instances": _keys(rows)}
    noisy_labels = np.where(labels < 0, -1, noisy_labels)
    return NoisyTaskCopy(protocol, drawn, drawn.task_ids, noisy_labels, wrong, is_redrawn=True)


def _with_noisy_tasks(drawn: TaskList, protocol: str, is_redrawn: bool, rng: np.random.Generator) -> NoisyTaskCopy:
    noisy, truth = flip_labels(drawn, Noise.parse(protocol), rng)
    wrong_tasks = frozenset(truth["task_id"])
    share = min(1.0, SCORED_ROW_TASKS / len(noisy))
    row_tasks = []
    for is_wrong in (True, False):
        members = [task for task in noisy.task_ids if (task in wrong_tasks) == is_wrong]
        row_tasks += members[: round(share * len(members))]
    wrong = {"tasks": wrong_tasks, "images": frozenset[str](), "instances": _keys(truth)}
    return NoisyTaskCopy(protocol, noisy, row_tasks, None, wrong, is_redrawn)


def _keys(rows: pd.DataFrame) -> frozenset[tuple[str, str, str]]:
    return frozenset(rows[KEY].itertuples(index=False, name=None))


def _given_labels(tasks: TaskList, images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the images to which most of their rows give one class, and the labels ``(n,)`` of the
    whole image set; -1 for other images.
    """
    pairs = image_label_pairs(tasks, images)
    numbers = np.array([images.class_names.index(name) for name in pairs.classes])
    has_majority = pairs.share > 0.5
    labels = np.full(len(images), -1, dtype=np.int64)
    labels[pairs.image[has_majority]] = numbers[pairs.label[has_majority]]
    return np.flatnonzero(labels >= 0), labels


def _drawn(
    images: ImageSet, labels: np.ndarray, positions: np.ndarray, tasks: TaskList, count: int, rng: np.random.Generator
) -> TaskList:
    """Return ``count`` tasks of the median shape of ``tasks``, drawn from the images at ``positions``.

    Fewer tasks than the given ones are drawn from fewer images, so that an image is in about as many tasks as before:
    scores of images are sums or means over them.

    Raises:
        UserError: there are too few images.
    """
    shape = task_shape(tasks)
    pool = pool_of(labels, positions, shape.shots + shape.queries)
    pool = _smaller_pool(pool, round(count / len(tasks) * tasks.rows["image_id"].nunique()), shape, rng)
    return sample_tasks(images, pool, **asdict(shape), count=count, prefix="c", rng=rng)


def _check_sizes(tasks: TaskList) -> None:
    """Raise UserError if the tasks have different numbers of support or query rows."""
    sizes = tasks.rows.groupby(["task_id", "role"], sort=False).size()
    if sizes.groupby(level="role").nunique().max() > 1:
        raise UserError("The tasks have different sizes.", "Only tasks of one size can be drawn anew.")


def _smaller_pool(pool: Pool, size: int, shape: TaskShape, rng: np.random.Generator) -> Pool:
    """Return about ``size`` images: a share of every class; of fewer classes, where a share is too few for a task."""
    share = size / max(1, sum(map(len, pool.values())))
    smaller: Pool = {}
    for label in rng.permutation(sorted(pool)).tolist():
        if len(smaller) >= shape.ways and sum(map(len, smaller.values())) >= size:
            break
        count = max(round(share * len(pool[label])), shape.shots + shape.queries)
        smaller[label] = rng.permutation(pool[label])[:count]
    return smaller
