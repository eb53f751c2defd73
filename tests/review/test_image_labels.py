"""Pairs of images and labels count the rows of task lists and detect conflicting labels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.review.image_labels import image_label_pairs
from core.tasks.tasklist import TaskList, from_rows
from tests.problems import tiny_images, tiny_tasks

IMAGES = tiny_images(classes=3)


def by_hand(rows: list[tuple[str, str, int, str, int, float]]) -> TaskList:
    columns = ["task_id", "role", "image", "label_class", "label", "weight"]
    table = pd.DataFrame(rows, columns=columns)
    return from_rows(
        pd.DataFrame(
            {
                "task_id": table["task_id"],
                "role": table["role"],
                "image_id": IMAGES.ids[table["image"].to_numpy()],
                "label": table["label"],
                "class": table["label_class"],
                "weight": table["weight"],
            }
        ),
        source="by hand",
        images=IMAGES,
    )


def test_every_image_and_class_is_one_pair() -> None:
    tasks = by_hand(
        [
            ("a", "support", 5, "1", 0, 1.0),
            ("a", "support", 3, "0", 1, 1.0),
            ("a", "query", 5, "0", 1, 1.0),
            ("a", "query", 7, "1", 0, 0.0),
            ("b", "support", 5, "1", 0, 1.0),
            ("b", "support", 8, "2", 1, 2.0),
            ("b", "query", 3, "1", 0, 1.0),
        ]
    )
    pairs = image_label_pairs(tasks, IMAGES)
    assert pairs.classes == ("0", "1", "2")
    assert list(zip(pairs.image, pairs.label, strict=True)) == [(5, 1), (3, 0), (5, 0), (8, 2), (3, 1)]
    np.testing.assert_array_equal(pairs.count, [2, 1, 1, 1, 1])
    np.testing.assert_array_equal(pairs.of_row, [0, 1, 2, -1, 0, 3, 4])
    assert pairs.has_conflicting_labels
    np.testing.assert_array_equal(pairs.is_main, [True, True, False, True, False])  # of equals the first
    np.testing.assert_allclose(pairs.share, [2 / 3, 1 / 2, 1 / 3, 1, 1 / 2])


def test_labels_corrupted_before_sampling_do_not_conflict() -> None:
    tasks = tiny_tasks(IMAGES, ways=3, shots=2, queries=2, count=20)
    pairs = image_label_pairs(tasks, IMAGES)
    assert not pairs.has_conflicting_labels
    assert pairs.is_main.all()
    assert len(pairs) == tasks.rows["image_id"].nunique()
    assert pairs.count.sum() == len(tasks.rows)
    rows = tasks.rows
    np.testing.assert_array_equal(IMAGES.ids[pairs.image[pairs.of_row]], rows["image_id"])
    np.testing.assert_array_equal(np.array(pairs.classes)[pairs.label[pairs.of_row]], rows["class"])
