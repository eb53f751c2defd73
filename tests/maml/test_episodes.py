"""Chunks contain every task once with its rows, and results do not depend on the chunk size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import grad

from core.influence.scores import instance_table
from core.maml.episodes import Episodes, sum_over_tasks, vmap_tasks
from core.maml.evaluation import Interval, evaluate
from core.maml.training import stationarity
from core.maml.vectors import flatten, unflatten
from core.tasks.tasklist import TaskList, from_rows
from tests.problems import Problem, tiny_problem, with_weights


def ragged(chunk: int = 3) -> Problem:
    """Return eight tasks of four shapes in mixed order, with weights other than 1."""
    problem = tiny_problem(ways=3, shots=3, queries=3, count=8)
    rows = problem.tasks.rows
    drop = {"t1": ("support", 1), "t3": ("query", 2), "t4": ("support", 1), "t6": ("query", 4), "t7": ("support", 1)}
    removed: list[int] = []
    for task_id, (role, number) in drop.items():
        indices = np.flatnonzero((rows["task_id"] == task_id) & (rows["role"] == role))
        removed += indices[:number].tolist()
    left = rows.drop(index=removed).reset_index(drop=True)
    tasks = from_rows(left.assign(weight=np.linspace(0, 2, len(left))), source="ragged")
    episodes = Episodes(tasks, problem.images, dtype=torch.float64, chunk=chunk)
    return Problem(problem.images, tasks, problem.model, problem.params, episodes)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_every_task_is_yielded_once_with_its_images_labels_and_weights(chunk: int) -> None:
    problem = ragged(chunk)
    table, positions_seen = problem.tasks.rows, []
    for part in problem.episodes.chunks():
        assert 0 < len(part.positions) <= chunk
        rows_s, rows_q = problem.episodes.rows(part.positions)
        for number, position in enumerate(part.positions):
            task_id = problem.tasks.task_ids[position]
            for role, rows, x, y, w in (
                ("support", rows_s, part.task.xs, part.task.ys, part.task.s),
                ("query", rows_q, part.task.xq, part.task.yq, part.task.q),
            ):
                indices = np.flatnonzero((table["task_id"] == task_id) & (table["role"] == role))
                assert rows[number].tolist() == indices.tolist()
                assert y[number].tolist() == table["label"].iloc[indices].tolist()
                assert w[number].tolist() == table["weight"].iloc[indices].tolist()
                pixels = problem.images.images[[problem.images.index[i] for i in table["image_id"].iloc[indices]]]
                assert torch.equal(x[number], torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255)
        positions_seen += part.positions.tolist()
    assert sorted(positions_seen) == list(range(8))


def test_positions_select_tasks() -> None:
    problem = ragged()
    chosen = np.array([1, 3, 4, 7])
    chunks = list(problem.episodes.chunks(chosen))
    assert sorted(np.concatenate([chunk.positions for chunk in chunks]).tolist()) == chosen.tolist()
    assert len(problem.episodes) == 8


def test_the_chunk_size_does_not_change_results() -> None:
    results = []
    for chunk in (1, 3, 100):
        problem = ragged(chunk)
        u = torch.linspace(-1, 1, len(flatten(problem.params)), dtype=torch.float64)
        table = instance_table(problem.model, problem.params, u, problem.episodes)
        measured = evaluate(problem.model, problem.params, problem.episodes)
        report = stationarity(problem.model, problem.params, problem.episodes)
        figures = [report.objective, report.gradient_norm, report.ratio]
        results.append(np.concatenate([table["score"], table["loss"], measured.accuracy, measured.loss, figures]))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(results[0], results[2], rtol=1e-9, atol=1e-12)


def test_with_weights_changes_only_the_weights() -> None:
    problem = ragged()
    weights = np.linspace(1, 3, len(problem.tasks.rows))
    other = with_weights(problem.episodes, weights)
    rebuilt = Episodes(
        TaskList(problem.tasks.rows.assign(weight=weights)), problem.images, dtype=torch.float64, chunk=3
    )
    for one, two, before in zip(other.chunks(), rebuilt.chunks(), problem.episodes.chunks(), strict=True):
        assert np.array_equal(one.positions, two.positions)
        assert all(torch.equal(a, b) for a, b in zip(one.task, two.task, strict=True))
        assert torch.equal(one.task.xs, before.task.xs)
        assert not torch.equal(one.task.s, before.task.s)
    assert other.tasks.rows["weight"].tolist() == weights.tolist()


def test_the_sum_over_a_chunk_equals_the_sum_over_its_tasks() -> None:
    problem = ragged(100)
    for chunk in problem.episodes.chunks():
        each = vmap_tasks(problem.model.task_loss)(problem.params, chunk.task)
        assert float(sum_over_tasks(problem.model.task_loss)(problem.params, chunk.task)) == pytest.approx(
            float(each.sum())
        )
        rows = torch.cat(
            [g.flatten(1) for g in vmap_tasks(grad(problem.model.task_loss))(problem.params, chunk.task).values()], 1
        )
        full = flatten(grad(sum_over_tasks(problem.model.task_loss))(problem.params, chunk.task))
        assert torch.allclose(rows.sum(0), full, atol=1e-12)


def test_flatten_and_unflatten_round_trip() -> None:
    params = tiny_problem().params
    repeated = unflatten(flatten(params), params)
    assert list(repeated) == list(params)
    assert all(torch.equal(repeated[name], params[name]) for name in params)


def test_a_row_of_weight_0_counts_in_the_mean() -> None:
    problem = tiny_problem(count=1)
    rows = problem.tasks.rows
    query = np.flatnonzero(rows["role"] == "query")
    losses = []
    for removed in ([], query[:1], query[1:], query):
        weights = np.ones(len(rows))
        weights[removed] = 0
        (chunk,) = with_weights(problem.episodes, weights).chunks()
        losses.append(float(sum_over_tasks(problem.model.task_loss)(problem.params, chunk.task)))
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-12)
    assert losses[3] == 0


def test_accuracy_and_loss_equal_a_loop_over_tasks() -> None:
    problem = ragged()
    u = torch.ones(len(flatten(problem.params)), dtype=torch.float64)
    rows = instance_table(problem.model, problem.params, u, problem.episodes)
    query = rows[rows["role"] == "query"].assign(right=lambda t: t["predicted"] == t["label"])
    expected: pd.DataFrame = query.groupby("task_id", sort=False)[["right", "loss"]].mean()
    actual = evaluate(problem.model, problem.params, problem.episodes)
    np.testing.assert_allclose(actual.accuracy, expected["right"].astype(float))
    np.testing.assert_allclose(actual.loss, expected["loss"])
    assert actual.mean_accuracy == Interval.of(actual.accuracy)


def test_an_interval_equals_one_computed_by_hand() -> None:
    interval = Interval.of([1.0, 2.0, 4.0, 5.0])
    half = 3.182446305284263 * (10 / 3) ** 0.5 / 2  # t quantile of 3 degrees of freedom, variance 10 / 3
    assert (interval.mean, interval.low, interval.high) == pytest.approx((3, 3 - half, 3 + half), rel=1e-12)


def test_an_interval_covers_the_mean_95_times_in_100() -> None:
    samples = np.random.default_rng(0).normal(size=(2000, 5))
    intervals = [Interval.of(sample) for sample in samples]
    assert np.mean([one.low <= 0 <= one.high for one in intervals]) == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_one_value_has_width_0() -> None:
    assert Interval.of([0.7]) == Interval(0.7, 0.7, 0.7)
