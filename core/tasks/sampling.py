"""Draw few-shot tasks from an image set."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList, from_rows

MAX_COMBINATIONS = 100_000


Pool = dict[int, np.ndarray]
"""The images that tasks may be drawn from: positions in the image set, by given class index."""


def split_images(images: ImageSet, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hold out ``share`` of the images of every class, or whole groups if the images have groups.

    Returns:
        Positions of the training and of the held-out images, both sorted.
    """
    if images.groups is not None:
        is_heldout = _choose_groups(images.groups, share, rng)
        return np.flatnonzero(~is_heldout), np.flatnonzero(is_heldout)
    by_class = [np.flatnonzero(images.labels == c) for c in range(len(images.class_names))]
    parts = [rng.permutation(members)[: round(share * len(members))] for members in by_class]
    heldout = np.sort(np.concatenate(parts))
    return np.setdiff1d(np.arange(len(images)), heldout), heldout


def _choose_groups(groups: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which images are in randomly chosen whole groups that have at least ``share`` of all images."""
    names, group_of, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    before = np.cumsum(sizes[order]) - sizes[order]
    return np.isin(group_of, order[before < round(share * len(groups))])


def split_classes(images: ImageSet, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hold out ``share`` of the classes with all their images; return positions as :func:`split_images` does."""
    order = rng.permutation(len(images.class_names))
    is_heldout = np.isin(images.labels, order[: round(share * len(order))])
    return np.flatnonzero(~is_heldout), np.flatnonzero(is_heldout)


def split_official(images: ImageSet, heldout: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the data set's own split, ``train`` and the part named ``heldout``, as :func:`split_images` does.

    Raises:
        UserError: the data set has no split, or no such part.
    """
    if images.splits is None:
        raise UserError(f"The image set {images.name!r} has no official split.", "Hold out images or classes instead.")
    for part in ("train", heldout):
        if part == "" or not (images.splits == part).any():
            existing = ", ".join(sorted({str(name) for name in images.splits} - {""}))
            raise UserError(
                f"The image set {images.name!r} has no part {part!r}; its parts: {existing}.",
                "Use --heldout-split with one of them, or --split images or --split classes.",
            )
    if heldout == "train":
        raise UserError("Held-out tasks cannot be drawn from the part train.", "Use val or test.")
    return np.flatnonzero(images.splits == "train"), np.flatnonzero(images.splits == heldout)


def split_validation(
    images: ImageSet,
    train: np.ndarray,
    *,
    by_classes: bool,
    share: float,
    ways: int,
    least: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the positions of the training images into those for training and those for validation tasks.

    The parts have no class in common if ``by_classes``, else no image and no group of images.

    Args:
        share: Of the classes, of the images of every class, or of the images in whole groups.
        ways, least: Classes per task, and images of a class that a task needs. Validation takes at least these, and
            leaves at least these for training.

    Returns:
        The sorted positions for training and for validation; the latter are empty where the images are too few.
    """
    labels = images.labels[train]
    classes = np.unique(labels)
    if by_classes:
        count = max(round(share * len(classes)), ways)
        chosen = np.isin(labels, rng.permutation(classes)[:count])
    elif images.groups is not None:
        chosen = _choose_groups(images.groups[train], share, rng)
    else:
        chosen = np.zeros(len(train), dtype=bool)
        for members in (rng.permutation(np.flatnonzero(labels == c)) for c in classes):
            count = max(round(share * len(members)), least)
            chosen[members[:count]] = len(members) >= count + least
    rest, validation = train[~chosen], train[chosen]
    if min(len(pool_of(images.labels, part, least)) for part in (rest, validation)) < ways:
        return train, train[:0]
    return rest, validation


def pool_of(labels: np.ndarray, positions: np.ndarray, min_images: int = 0) -> Pool:
    """Group ``positions`` by their class, without classes of fewer than ``min_images`` images.

    Args:
        labels: ``(n,)`` over the whole image set.
    """
    by_class = {int(c): positions[labels[positions] == c] for c in np.unique(labels[positions])}
    return {c: members for c, members in by_class.items() if len(members) >= min_images}


def class_sets(classes: list[int], ways: int, count: int | None, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Choose the classes of each task; their order defines the task's labels.

    If there are at most as many combinations of ``ways`` classes as tasks, all combinations occur equally often (up to
    one); otherwise combinations are drawn at random. ``count=None`` means each combination once.
    """
    total = comb(len(classes), ways)
    if count is None or total <= count:
        if total > MAX_COMBINATIONS:
            raise UserError(f"There are {total:,} combinations of {ways} classes.", "Specify the number of tasks.")
        all_sets = list(combinations(classes, ways))
        count = count or total
        chosen: list[tuple[int, ...]] = []
        while len(chosen) < count:
            chosen += [all_sets[i] for i in rng.permutation(total)] if count > total else all_sets
        chosen = chosen[:count]
    else:
        chosen = [tuple(rng.choice(classes, ways, replace=False).tolist()) for _ in range(count)]
    return [tuple(rng.permutation(np.array(labels)).tolist()) for labels in chosen]


def sample_tasks(
    images: ImageSet,
    pool: Pool,
    *,
    ways: int,
    shots: int,
    queries: int,
    count: int | None,
    prefix: str,
    rng: np.random.Generator,
) -> TaskList:
    """Draw N-way, S-shot, Q-query tasks; within a task no image occurs twice.

    Args:
        shots, queries: Images per class in the support and the query set.
        count: Number of tasks; None means every combination of ``ways`` classes once.
        prefix: First part of the task ids.

    Raises:
        UserError: there are too few classes, or a class has too few images.
    """
    if min(ways - 1, shots, queries, 1 if count is None else count) < 1:
        raise UserError(
            f"ways {ways}, shots {shots}, queries {queries}, count {count}: a value is too small.",
            "Use at least 2 ways, 1 shot, 1 query and 1 task.",
        )
    if len(pool) < ways:
        raise UserError(
            f"{ways}-way tasks need {ways} classes, but there are {len(pool)} to draw from.",
            "Reduce the ways or change the split.",
        )
    for c, members in pool.items():
        if len(members) < shots + queries:
            raise UserError(
                f"Class {images.class_names[c]!r} has {len(members)} images to draw from after the split, "
                f"but {shots} shots and {queries} queries need {shots + queries}.",
                "Reduce the shots or queries, hold out whole classes with --split classes, or skip such classes with "
                "--skip-small-classes.",
            )
    chosen = class_sets(sorted(pool), ways, count, rng)
    width, total = len(str(len(chosen) - 1)), len(chosen)
    positions = np.array([[rng.choice(pool[c], shots + queries, replace=False) for c in one] for one in chosen])
    support, query = positions[:, :, :shots].reshape(total, -1), positions[:, :, shots:].reshape(total, -1)
    labels = np.repeat([*range(ways)] * 2, [shots] * ways + [queries] * ways)  # of one task, support first
    columns = {
        "task_id": np.repeat([f"{prefix}{number:0{width}d}" for number in range(total)], labels.size),
        "role": np.tile(np.repeat(["support", "query"], [ways * shots, ways * queries]), total),
        "image_id": images.ids[np.hstack([support, query]).ravel()],
        "label": np.tile(labels, total),
        "class": np.array(images.class_names, dtype=object)[np.array(chosen)[:, labels].ravel()],
    }
    return from_rows(pd.DataFrame(columns), source="sampled tasks", images=images)
