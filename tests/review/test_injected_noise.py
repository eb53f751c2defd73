"""Injected label errors have the stated number and kind, in a copy that is a valid task list."""

from __future__ import annotations

import numpy as np
import pytest

from core.data import ImageSet
from core.review.image_labels import ImageLabelPairs, image_label_pairs
from core.review.injected_noise import (
    ERROR_SHARE,
    IMAGE_KINDS,
    MIN_ERRORS,
    ROW_KINDS,
    NoisyCopy,
    corrupt_images,
    corrupt_rows,
)
from core.tasks.noise import Noise, flip_labels
from core.tasks.tasklist import TaskList, from_rows
from tests.problems import tiny_images, tiny_tasks

IMAGES = tiny_images(per_class=100)
TASKS = tiny_tasks(IMAGES, ways=3, shots=2, queries=3, count=120)
NOISY = flip_labels(TASKS, Noise.parse("tasks:0.3:0.3"), np.random.default_rng(0))[0]


def inject(
    tasks: TaskList, kind: str, by_row: bool, images: ImageSet = IMAGES
) -> tuple[ImageLabelPairs, np.ndarray, NoisyCopy]:
    pairs, rng = image_label_pairs(tasks, images), np.random.default_rng(1)
    log_p = np.random.default_rng(2).normal(size=(len(pairs), len(pairs.classes)))
    log_p[::7] = np.nan  # as of images that are the only ones of their class
    before = tasks.rows.copy(), pairs.label.copy(), pairs.of_row.copy(), log_p.copy(), images.labels.copy()
    found = (corrupt_rows if by_row else corrupt_images)(images, pairs, tasks, log_p, kind, rng)
    assert before[0].equals(tasks.rows)  # the original is unchanged
    np.testing.assert_array_equal(before[1], pairs.label)
    np.testing.assert_array_equal(before[2], pairs.of_row)
    np.testing.assert_array_equal(before[3], log_p)
    np.testing.assert_array_equal(before[4], images.labels)
    return pairs, log_p, found


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_errors_of_images(kind: str) -> None:
    pairs, log_p, found = inject(TASKS, kind, by_row=False)
    wrong = found.is_wrong
    assert len(wrong) == len(pairs)
    assert wrong.sum() == max(MIN_ERRORS, round(ERROR_SHARE * len(pairs)))
    np.testing.assert_array_equal(found.pairs.label != pairs.label, wrong)
    np.testing.assert_array_equal(found.pairs.image, pairs.image)
    from_rows(found.tasks.rows, source="copy", images=IMAGES)
    labels_of_copy = dict(zip(IMAGES.ids[pairs.image], np.array(pairs.classes)[found.pairs.label], strict=True))
    rows = found.tasks.rows  # sampled from the labels of the copy
    assert (rows["image_id"].map(labels_of_copy) == rows["class"]).all()
    label = found.pairs.label[wrong]
    if kind == "uniform":
        assert len(set(zip(pairs.label[wrong], label, strict=True))) == 4 * 3
    if kind == "hardest":
        odds = np.nan_to_num(log_p[wrong], nan=-1e9)
        odds[np.arange(len(label)), pairs.label[wrong]] = -np.inf
        np.testing.assert_array_equal(label, odds.argmax(1))
    if kind == "look-alike":  # as core.tasks.noise: the nearest mean image of another class
        pixels = IMAGES.images.reshape(len(IMAGES), -1).astype(np.float64)
        means = np.stack([pixels[pairs.image[pairs.label == c]].mean(0) for c in range(4)])
        distances = ((pixels[pairs.image[wrong], None] - means) ** 2).sum(-1)
        distances[np.arange(len(label)), pairs.label[wrong]] = np.inf
        np.testing.assert_array_equal(label, distances.argmin(1))


def test_at_most_half_of_few_items_are_corrupted() -> None:
    tasks = tiny_tasks(tiny_images(), ways=3, shots=2, queries=3, count=2)
    pairs, _, found = inject(tasks, "uniform", by_row=False, images=tiny_images())
    assert found.is_wrong.sum() == len(pairs) // 2
    assert len(found.tasks) >= 1


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_errors_of_rows(kind: str) -> None:
    pairs, log_p, found = inject(NOISY, kind, by_row=True)
    rows, before, wrong = found.tasks.rows, NOISY.rows, found.is_wrong
    assert len(wrong) == len(before)
    assert wrong.sum() == round(ERROR_SHARE * len(before))
    np.testing.assert_array_equal((rows["label"] != before["label"]).to_numpy(), wrong)
    validated = from_rows(rows, source="copy", images=IMAGES)  # every class keeps a support row
    assert validated.rows.astype(object).equals(rows.astype(object))
    assert rows.drop(columns=["label", "class"]).equals(before.drop(columns=["label", "class"]))
    remade = image_label_pairs(found.tasks, IMAGES)
    np.testing.assert_array_equal(remade.of_row, found.pairs.of_row)
    tasks = rows["task_id"][wrong].value_counts()
    if kind == "within tasks":  # of few tasks, half of the labels of each
        assert len(tasks) <= 2 * wrong.sum() / (0.5 * 12)
        assert tasks.median() >= 4
    else:
        assert len(tasks) > 50
    if kind == "hardest":
        names = before.drop_duplicates(["task_id", "label"]).set_index(["task_id", "label"])["class"]
        odds = np.nan_to_num(log_p, nan=-1e9)
        for at in np.flatnonzero(wrong)[:20]:
            others = [
                odds[pairs.of_row[at], pairs.classes.index(names[before["task_id"][at], label])]
                for label in range(3)
                if label != before["label"][at]
            ]
            chosen = odds[pairs.of_row[at], pairs.classes.index(rows["class"][at])]
            assert chosen == max(others)


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_rows_of_weight_0_are_unchanged(kind: str) -> None:
    weight = np.ones(len(NOISY.rows))
    weight[5::3] = 0.0
    tasks = TaskList(NOISY.rows.assign(weight=weight))
    _, _, found = inject(tasks, kind, by_row=True)
    assert len(found.is_wrong) == (weight > 0).sum()
    changed = (found.tasks.rows["label"] != tasks.rows["label"]).to_numpy()
    assert not changed[weight == 0].any()
    np.testing.assert_array_equal(changed[weight > 0], found.is_wrong)
