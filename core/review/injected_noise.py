"""Wrong labels planted on a copy of the labels, so that every score can be held against known errors on this very data.

The model's meta-parameters stay as they are; everything else that a score is made of (classifiers, scoring tasks, own
tasks) is made anew from the copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.review.image_labels import ImageLabelPairs, image_label_pairs
from core.review.scoring import shape_of
from core.runtime.errors import UserError
from core.tasks.noise import class_distances
from core.tasks.sampling import pool_of, sample_tasks
from core.tasks.tasklist import TaskList

IMAGE_KINDS = ("uniform", "look-alike", "hardest")
ROW_KINDS = ("uniform", "hardest", "within tasks")
SHARE, LEAST = 0.05, 40
_TASKS = 300  # drawn anew from relabelled images
_WITHIN = 0.5  # of the labels of a spoilt task


@dataclass(frozen=True, eq=False)
class NoisyCopy:
    """A spoilt copy: its claims and tasks, and which of its items, in their order, are wrong on purpose."""

    kind: str
    claims: ImageLabelPairs
    tasks: TaskList
    wrong: np.ndarray


def inject_label_noise(
    images: ImageSet,
    claims: ImageLabelPairs,
    tasks: TaskList,
    log_p: np.ndarray,
    kind: str,
    by_row: bool,
    rng: np.random.Generator,
) -> NoisyCopy:
    """Flip a small share of the labels.

    Args:
        log_p: Log-probability of every class for every claim ``(n, classes)``.
        kind: ``uniform``: any other class; ``look-alike`` (images alone): the class whose mean image is nearest, as
            :mod:`core.tasks.noise` plants it; ``hardest``: the class that the classifiers find likeliest; ``within
            tasks`` (rows alone): half of the labels of few tasks.
    """
    return (_rows if by_row else _images)(images, claims, tasks, log_p, kind, rng)


def _many(items: int) -> int:
    return min(max(round(SHARE * items), LEAST), items // 2)


def _images(
    images: ImageSet, claims: ImageLabelPairs, tasks: TaskList, log_p: np.ndarray, kind: str, rng: np.random.Generator
) -> NoisyCopy:
    n, classes = log_p.shape
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.permutation(n)[: _many(n)]] = True
    label = claims.label.copy()
    if kind == "uniform":
        label[wrong] = (label[wrong] + rng.integers(1, classes, wrong.sum())) % classes
    else:
        others = -_distances(images, claims, wrong) if kind == "look-alike" else np.nan_to_num(log_p[wrong], nan=-1e9)
        others[np.arange(wrong.sum()), label[wrong]] = -np.inf
        label[wrong] = others.argmax(1)
    spoilt = replace(claims, label=label, of_row=np.full_like(claims.of_row, -1))
    return NoisyCopy(kind, spoilt, _drawn_anew(images, spoilt, tasks, rng), wrong)


def _distances(images: ImageSet, claims: ImageLabelPairs, wrong: np.ndarray) -> np.ndarray:
    """``(wrong, classes)``: of the pixels to the mean image of every class."""
    given = replace(images, labels=images.labels.copy())
    place = {name: number for number, name in enumerate(images.class_names)}
    given.labels[claims.image] = [place[claims.classes[label]] for label in claims.label]
    classes = np.array([place[name] for name in claims.classes])
    return class_distances(given, claims.image, classes, claims.image[wrong])


def _drawn_anew(images: ImageSet, claims: ImageLabelPairs, tasks: TaskList, rng: np.random.Generator) -> TaskList:
    """Tasks over the labels of the copy; the old ones where its classes have become too small."""
    shape = shape_of(tasks)
    place = {name: number for number, name in enumerate(images.class_names)}
    given = np.full(len(images), -1, dtype=np.int64)
    given[claims.image] = [place[claims.classes[label]] for label in claims.label]
    pool = pool_of(given, np.sort(claims.image)).without_small(shape.shots + shape.queries)
    try:
        return sample_tasks(
            images,
            pool,
            ways=shape.ways,
            shots=shape.shots,
            queries=shape.queries,
            count=min(len(tasks), _TASKS),
            prefix="c",
            rng=rng,
        )
    except UserError:
        return tasks


def _rows(
    images: ImageSet, claims: ImageLabelPairs, tasks: TaskList, log_p: np.ndarray, kind: str, rng: np.random.Generator
) -> NoisyCopy:
    rows = tasks.rows.copy()
    made = claims.of_row >= 0
    label, names = rows["label"].to_numpy().copy(), rows["class"].to_numpy(dtype=object).copy()
    task = pd.factorize(rows["task_id"])[0]
    free = np.flatnonzero(made & ~_needed(rows))
    many = _many(int(made.sum()))
    if kind == "within tasks":
        turn = rng.permutation(task.max() + 1)
        half = free[rng.random(len(free)) < _WITHIN]
        chosen = half[np.argsort(turn[task[half]], kind="stable")][:many]  # of one task after another
    else:
        chosen = rng.permutation(free)[:many]
    class_of = np.full((task.max() + 1, tasks.ways), "", dtype=object)
    class_of[task, label] = names
    code = {name: number for number, name in enumerate(claims.classes)}
    for at in chosen:
        others = np.delete(np.arange(tasks.ways), label[at])
        if kind == "hardest":
            odds = [log_p[claims.of_row[at], code[c]] if c in code else -1e9 for c in class_of[task[at], others]]
            label[at] = others[int(np.argmax(np.nan_to_num(odds, nan=-1e9)))]
        else:
            label[at] = rng.choice(others)
        names[at] = class_of[task[at], label[at]]
    wrong = np.zeros(len(rows), dtype=bool)
    wrong[chosen] = True
    spoilt = TaskList(rows.assign(label=label, **{"class": names}))
    return NoisyCopy(kind, image_label_pairs(spoilt, images), spoilt, wrong[made])


def _needed(rows: pd.DataFrame) -> np.ndarray:
    """The first support row of every class of a task, which keeps its label so that no class is left without."""
    support = rows["role"] == "support"
    return (support & ~rows[support].duplicated(["task_id", "label"]).reindex(rows.index, fill_value=True)).to_numpy()
