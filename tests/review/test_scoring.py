"""Scoring tasks score every pair with the loss that evaluation gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.review.image_labels import ImageLabelPairs, image_label_pairs
from core.review.scoring import ScoringTasks, TaskShape, draw_round, score_pairs, task_list, task_shape, tasks_per_round
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList
from tests.problems import tiny_images, tiny_problem, tiny_tasks

IMAGES = tiny_images()
SHAPE = TaskShape(ways=3, shots=2, queries=2)


def made(classes: list[int]) -> ImageLabelPairs:
    """Return pairs with the given numbers of images per class."""
    label = np.repeat(np.arange(len(classes)), classes)
    n = len(label)
    return ImageLabelPairs(np.arange(n), label, np.ones(n, int), tuple(map(str, range(len(classes)))), np.arange(n))


def draw(pairs: ImageLabelPairs, seed: int = 0, suspicion: np.ndarray | None = None) -> ScoringTasks:
    return draw_round(pairs, SHAPE, suspicion, np.random.default_rng(seed))


@pytest.mark.parametrize("sizes", [[5, 8, 3, 9], [2, 2, 2, 2], [20, 3, 3], [7, 1, 6, 5]])
def test_a_round_scores_every_pair_without_its_image_in_the_support(sizes: list[int]) -> None:
    pairs = made(sizes)
    alone = np.isin(pairs.label, np.flatnonzero(np.array(sizes) < 2))
    drawn = draw(pairs)
    assert drawn.support.shape[1:] == (3, 2)
    assert drawn.query.shape[1:] == (3, 2)
    assert len(drawn.query) == len(draw(pairs, 1, np.arange(len(pairs))).query) == tasks_per_round(pairs, SHAPE)
    assert set(drawn.query.ravel()) == set(np.flatnonzero(~alone))  # classes of one image are left out
    assert not np.isin(drawn.support, np.flatnonzero(alone)).any()
    for support, query in zip(drawn.support, drawn.query, strict=True):
        classes = pairs.label[query[:, 0]]
        assert len(set(classes)) == 3
        np.testing.assert_array_equal(pairs.label[support], np.repeat(classes[:, None], 2, 1))
        np.testing.assert_array_equal(pairs.label[query], np.repeat(classes[:, None], 2, 1))
        for s, q, label in zip(support, query, classes, strict=True):
            if sizes[label] > len(set(q)):
                assert not set(s) & set(q)


def test_rounds_have_different_support_images() -> None:
    pairs, rng = made([9, 9, 9]), np.random.default_rng(0)
    one, two = (draw_round(pairs, SHAPE, None, rng) for _ in range(2))
    beside = [
        {q: frozenset(s) for s, q in zip(drawn.support.reshape(-1, 2), drawn.query[..., 0].ravel(), strict=True)}
        for drawn in (one, two)
    ]
    common = beside[0].keys() & beside[1].keys()
    assert len(common) > 3
    assert sum(beside[0][q] == beside[1][q] for q in common) <= len(common) / 2


def test_the_most_suspicious_images_are_not_support_after_the_first_round() -> None:
    pairs = made([10, 10, 10])
    suspicion = np.zeros(30)
    suspicion[[0, 1, 10, 11, 20, 21]] = 5.0
    drawn = draw(pairs, suspicion=suspicion)
    assert not np.isin(drawn.support, np.flatnonzero(suspicion)).any()
    assert set(drawn.query.ravel()) == set(range(30))


def test_a_minority_label_is_scored_but_never_support() -> None:
    pairs = made([6, 6, 6])
    pairs = replace(pairs, image=np.r_[pairs.image[:-1], 0], count=np.r_[3, pairs.count[1:]])
    drawn = draw(pairs)
    assert 17 in drawn.query
    assert 17 not in drawn.support


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 classes .* 3"):
        draw(made([4, 4, 1, 1]))


def test_the_median_shape() -> None:
    assert task_shape(tiny_tasks(IMAGES, ways=3, shots=2, queries=4, count=5)) == TaskShape(3, 2, 4)


def test_the_task_list_contains_the_sampled_pairs() -> None:
    pairs = image_label_pairs(tiny_tasks(IMAGES, ways=3, shots=2, queries=2, count=12), IMAGES)
    drawn = draw(pairs)
    tasks = task_list(drawn, pairs, IMAGES.ids)
    assert len(tasks) == len(drawn.query)
    assert tasks.ways == 3
    for role, part in (("support", drawn.support), ("query", drawn.query)):
        rows = tasks.rows[tasks.rows["role"] == role]
        np.testing.assert_array_equal(rows["image_id"], IMAGES.ids[pairs.image[part.ravel()]])
        np.testing.assert_array_equal(rows["class"], np.array(pairs.classes)[pairs.label[part.ravel()]])
        np.testing.assert_array_equal(rows["label"], np.tile(np.repeat([0, 1, 2], 2), len(tasks)))


def test_losses_are_those_of_evaluation_and_margins_agree_with_them() -> None:
    problem = tiny_problem()
    images, pairs = problem.images, image_label_pairs(problem.tasks, problem.images)

    def episodes_of(tasks: TaskList) -> Episodes:
        return Episodes(tasks, images, dtype=torch.float64, chunk=3)

    found = score_pairs(problem.model, problem.params, pairs, SHAPE, episodes_of, images.ids, rounds=2, seed=7)
    rng = np.random.default_rng(7)
    loss, wrong, times = np.zeros((3, len(pairs)))
    suspicion = None
    for _ in range(2):
        drawn = draw_round(pairs, SHAPE, suspicion, rng)
        rows = evaluate(problem.model, problem.params, episodes_of(task_list(drawn, pairs, images.ids))).rows
        which = drawn.query.ravel()
        np.add.at(loss, which, rows["loss"].to_numpy())
        np.add.at(wrong, which, (rows["predicted"] != rows["label"]).to_numpy())
        np.add.at(times, which, 1)
        suspicion = loss / times
    assert (times >= 2).all()
    mean_loss, margin = found
    np.testing.assert_allclose(mean_loss, loss / times, rtol=1e-9)
    np.testing.assert_array_equal(margin[wrong == times] > 0, True)
    np.testing.assert_array_equal(margin[wrong == 0] < 0, True)
