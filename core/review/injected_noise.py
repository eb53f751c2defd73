"""Inject known label errors into a copy of the labels, to measure on these data how well every score finds them.

The model's meta-parameters are unchanged; everything else that scores are computed from is computed from the copy.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.review.image_labels import ImageLabelPairs, image_label_pairs
from core.review.scoring import task_shape
from core.runtime.errors import UserError
from core.tasks.noise import class_distances
from core.tasks.sampling import pool_of, sample_tasks
from core.tasks.tasklist import TaskList

IMAGE_KINDS = ("uniform", "look-alike", "hardest")
ROW_KINDS = ("uniform", "hardest", "within tasks")
ERROR_SHARE, MIN_ERRORS = 0.05, 40
"""Share of the labels that are flipped: few, so that classifiers stay as good as on the data; at least 40 give an
average precision with a standard error below about 0.08."""
MAX_TASKS = 300
"""Tasks sampled again from relabelled images: enough for stable scores, at a fraction of the cost of all."""
NOISY_TASK_SHARE = 0.5
"""Share of the labels of a noisy task that are wrong, for the kind ``within tasks``."""


class NoisyCopy(NamedTuple):
    """The pairs and tasks of a copy with injected label errors; ``is_wrong`` ``(items,)`` marks the errors."""

    pairs: ImageLabelPairs
    tasks: TaskList
    is_wrong: np.ndarray


def _error_count(items: int) -> int:
    return min(max(round(ERROR_SHARE * items), MIN_ERRORS), items // 2)


def corrupt_images(
    images: ImageSet, pairs: ImageLabelPairs, tasks: TaskList, log_p: np.ndarray, kind: str, rng: np.random.Generator
) -> NoisyCopy:
    """Return a copy with a small share of the labels of images flipped.

    Args:
        log_p: ``(n, classes)``: log-probability of every class for every pair.
        kind: ``uniform``: any other class; ``look-alike``: the class whose mean image is nearest, as
            :mod:`core.tasks.noise` injects it; ``hardest``: the class that the classifiers find likeliest.
    """
    n, classes = log_p.shape
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.permutation(n)[: _error_count(n)]] = True
    label = pairs.label.copy()
    if kind == "uniform":
        label[wrong] = (label[wrong] + rng.integers(1, classes, wrong.sum())) % classes
    else:
        others = np.nan_to_num(log_p[wrong], nan=-1e9)
        if kind == "look-alike":
            numbers = _class_numbers(images, pairs)
            relabelled = replace(images, labels=images.labels.copy())
            relabelled.labels[pairs.image] = numbers[pairs.label]
            others = -class_distances(relabelled, pairs.image, numbers, pairs.image[wrong])
        others[np.arange(wrong.sum()), label[wrong]] = -np.inf
        label[wrong] = others.argmax(1)
    corrupted = replace(pairs, label=label, of_row=np.full_like(pairs.of_row, -1))
    return NoisyCopy(corrupted, _resampled_tasks(images, corrupted, tasks, rng), wrong)


def _class_numbers(images: ImageSet, pairs: ImageLabelPairs) -> np.ndarray:
    """Return the position in ``images.class_names`` of every class of the pairs."""
    return np.array([images.class_names.index(name) for name in pairs.classes])


def _resampled_tasks(images: ImageSet, pairs: ImageLabelPairs, tasks: TaskList, rng: np.random.Generator) -> TaskList:
    """Return tasks sampled from the copy's labels; the original ones if its classes have become too small."""
    shape = task_shape(tasks)
    labels = np.full(len(images), -1, dtype=np.int64)
    labels[pairs.image] = _class_numbers(images, pairs)[pairs.label]
    pool = pool_of(labels, np.sort(pairs.image), shape.shots + shape.queries)
    try:
        return sample_tasks(images, pool, **asdict(shape), count=min(len(tasks), MAX_TASKS), prefix="c", rng=rng)
    except UserError:
        return tasks


def corrupt_rows(
    images: ImageSet, pairs: ImageLabelPairs, tasks: TaskList, log_p: np.ndarray, kind: str, rng: np.random.Generator
) -> NoisyCopy:
    """Return a copy with a small share of the labels of rows flipped, with the arguments of :func:`corrupt_images`.

    Instead of ``look-alike`` there is the kind ``within tasks``: half of the labels of few tasks.
    """
    rows = tasks.rows.copy()
    in_use = pairs.of_row >= 0
    label, names = rows["label"].to_numpy().copy(), rows["class"].to_numpy(dtype=object).copy()
    task = pd.factorize(rows["task_id"])[0]
    # The first support row of every class of a task keeps its label, so that no class is left without support.
    support = rows["role"] == "support"
    anchors = support & ~rows[support].duplicated(["task_id", "label"]).reindex(rows.index, fill_value=True)
    flippable = np.flatnonzero(in_use & ~anchors.to_numpy())
    count = _error_count(int(in_use.sum()))
    if kind == "within tasks":
        task_order = rng.permutation(task.max() + 1)
        candidates = flippable[rng.random(len(flippable)) < NOISY_TASK_SHARE]
        by_task = np.argsort(task_order[task[candidates]], kind="stable")
        chosen = candidates[by_task][:count]
    else:
        chosen = rng.permutation(flippable)[:count]
    class_of = np.full((task.max() + 1, tasks.ways), "", dtype=object)
    class_of[task, label] = names
    code = {name: number for number, name in enumerate(pairs.classes)}
    for row in chosen:
        other_labels = np.delete(np.arange(tasks.ways), label[row])
        if kind == "hardest":
            odds = [log_p[pairs.of_row[row], code[c]] if c in code else -1e9 for c in class_of[task[row], other_labels]]
            label[row] = other_labels[int(np.argmax(np.nan_to_num(odds, nan=-1e9)))]
        else:
            label[row] = rng.choice(other_labels)
        names[row] = class_of[task[row], label[row]]
    wrong = np.zeros(len(rows), dtype=bool)
    wrong[chosen] = True
    corrupted = TaskList(rows.assign(label=label, **{"class": names}))
    return NoisyCopy(image_label_pairs(corrupted, images), corrupted, wrong[in_use])
