"""Copies are valid task lists of new tasks with the stated noise, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from core.recommendation.copies import IMAGE_PROTOCOLS, PROTOCOLS, SCORED_ROW_TASKS, TASK_PROTOCOLS, TASKS, noisy_copy
from core.runtime.errors import UserError
from core.tasks.noise import Noise, flip_labels
from core.tasks.tasklist import KEY, TaskList, from_rows
from tests.problems import tiny_images, tiny_tasks

IMAGES = tiny_images(per_class=60)
GIVEN = tiny_tasks(IMAGES, ways=3, shots=2, queries=3, count=80)
NOISY = flip_labels(GIVEN, Noise.parse("tasks:0.4:0.8"), np.random.default_rng(0))[0]
TRUE = dict(zip(IMAGES.ids, np.array(IMAGES.class_names)[IMAGES.labels], strict=True))


@pytest.mark.parametrize("protocol", PROTOCOLS["instances"])
def test_wrong_rows_are_those_with_another_class(protocol: str) -> None:
    copy = noisy_copy(IMAGES, GIVEN, protocol, seed=3)
    rows = copy.tasks.rows
    from_rows(rows, source="copy", images=IMAGES)
    assert copy.is_redrawn
    is_wrong = (rows["class"] != rows["image_id"].map(TRUE)).to_numpy()
    assert {*rows.loc[is_wrong, KEY].itertuples(index=False, name=None)} == copy.wrong["instances"]
    again, other = noisy_copy(IMAGES, GIVEN, protocol, seed=3), noisy_copy(IMAGES, GIVEN, protocol, seed=4)
    assert again.tasks.hash == copy.tasks.hash != other.tasks.hash


@pytest.mark.parametrize("protocol", TASK_PROTOCOLS)
def test_noise_within_tasks(protocol: str) -> None:
    noise, copy = Noise.parse(protocol), noisy_copy(IMAGES, GIVEN, protocol, seed=0)
    assert len(copy.tasks) == TASKS
    assert len(copy.wrong["tasks"]) == round(noise.share * TASKS)
    assert copy.wrong["tasks"] == {task for task, _, _ in copy.wrong["instances"]}
    chosen = set(copy.row_tasks)
    assert len(chosen) == SCORED_ROW_TASKS
    assert len(chosen & copy.wrong["tasks"]) == round(noise.share * SCORED_ROW_TASKS)


@pytest.mark.parametrize("protocol", IMAGE_PROTOCOLS)
def test_mislabelled_images(protocol: str) -> None:
    copy = noisy_copy(IMAGES, GIVEN, protocol, seed=0)
    rows = copy.tasks.rows
    assert copy.wrong["images"] == {image for _, _, image in copy.wrong["instances"]}
    assert 0.03 < len(copy.wrong["images"]) / rows["image_id"].nunique() < 0.2
    assert set(copy.row_tasks) == set(copy.tasks.task_ids)
    given, drawn = (len(one.rows) / one.rows["image_id"].nunique() for one in (GIVEN, copy.tasks))
    assert 0.7 < given / drawn < 1.4, "an image is in about as many tasks as in the given list"


def test_flips_within_the_given_tasks_do_not_count_as_correct() -> None:
    """Nearly a third of the given labels are wrong; the class that most of its rows give an image seldom is."""
    assert (NOISY.rows["class"] != NOISY.rows["image_id"].map(TRUE)).mean() > 0.25
    copy = noisy_copy(IMAGES, NOISY, "image", seed=0)
    rows = copy.tasks.rows[~copy.tasks.rows["image_id"].isin(copy.wrong["images"])]
    assert (rows["class"] != rows["image_id"].map(TRUE)).mean() < 0.1


def test_given_tasks_are_used_where_none_can_be_drawn() -> None:
    fewer = NOISY.rows.drop(index=NOISY.rows.index[NOISY.rows["role"] == "query"][0]).reset_index(drop=True)
    few_images = tiny_tasks(tiny_images(per_class=5), ways=3, shots=2, queries=3, count=6)
    few_images, _ = flip_labels(few_images, Noise.parse("tasks:1:0.8"), np.random.default_rng(0))
    for given in (TaskList(fewer), few_images):
        copy = noisy_copy(IMAGES, given, "easy", seed=0)
        assert not copy.is_redrawn
        assert set(copy.tasks.task_ids) <= set(given.task_ids)
        assert len(copy.wrong["tasks"]) == round(0.4 * len(given))
    with pytest.raises(UserError):
        noisy_copy(IMAGES, few_images, "image", seed=0)
