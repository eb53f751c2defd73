"""Properties of removal gradients and scores that hold for any model and any tasks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from core.editing.linear import change_gradient, row_change, touched_tasks
from core.influence.curvature import Curvature
from core.influence.scores import ALL_ZERO, NOT_FINITE, ScoresError, image_table, instance_table, task_table
from core.influence.solvers import conjugate_gradients
from core.influence.targets import Target, target_gradient
from core.maml.episodes import Episodes
from core.maml.vectors import flatten
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList, from_rows
from tests.problems import Problem, tiny_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem(ways=2, shots=2, queries=2, count=5, steps=2)


def direction(problem: Problem) -> Tensor:
    return torch.linspace(-1, 2, len(flatten(problem.params)), dtype=torch.float64)


def scored(problem: Problem, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    tasks = problem.tasks if rows is None else from_rows(rows, source="changed")
    episodes = Episodes(tasks, problem.images, dtype=torch.float64, chunk=2)
    return instance_table(problem.model, problem.params, direction(problem), episodes)


def removed(problem: Problem, gone: np.ndarray) -> Tensor:
    weights = np.where(gone, 0.0, problem.tasks.rows["weight"].to_numpy())
    return change_gradient(problem.model, problem.params, problem.episodes, weights)


def masks(problem: Problem) -> dict[str, np.ndarray]:
    rows = problem.tasks.rows
    task, role = rows["task_id"], rows["role"]
    numbers = np.arange(len(rows))
    return {
        "task": (task == "t1").to_numpy(),
        "other task": (task == "t4").to_numpy(),
        "query row": numbers == np.flatnonzero((task == "t0") & (role == "query"))[0],
        "support row": numbers == np.flatnonzero((task == "t0") & (role == "support"))[1],
        "row elsewhere": numbers == np.flatnonzero((task == "t2") & (role == "query"))[-1],
    }


@pytest.mark.parametrize("one", ["task", "query row", "support row"])
@pytest.mark.parametrize("other", ["other task", "row elsewhere", "support row"])
def test_removing_two_things_is_the_sum_of_removing_each(problem: Problem, one: str, other: str) -> None:
    if one == other:
        other = "row elsewhere"
    a, b = masks(problem)[one], masks(problem)[other]
    both = removed(problem, a | b)
    assert torch.allclose(both, removed(problem, a) + removed(problem, b), atol=1e-12)
    assert both.norm() > 1e-6


def test_removing_all_rows_of_a_task_equals_removing_the_task(problem: Problem) -> None:
    rows = problem.tasks.rows
    task = (rows["task_id"] == "t1").to_numpy()
    query = task & (rows["role"] == "query").to_numpy()
    full = removed(problem, task)
    assert torch.allclose(full, removed(problem, query), atol=1e-12)
    parts = [removed(problem, np.arange(len(rows)) == row) for row in np.flatnonzero(query)]
    assert torch.allclose(full, torch.stack(parts).sum(0), atol=1e-12)


def test_removing_nothing_has_no_gradient(problem: Problem) -> None:
    nothing = np.zeros(len(problem.tasks.rows), dtype=bool)
    assert (removed(problem, nothing) == 0).all()
    assert touched_tasks(problem.episodes, row_change(problem.episodes, np.ones(len(nothing)))).size == 0


def test_removal_is_linear_in_the_weight(problem: Problem) -> None:
    row = masks(problem)["query row"]
    half = change_gradient(problem.model, problem.params, problem.episodes, np.where(row, 0.5, 1.0))
    assert torch.allclose(2 * half, removed(problem, row), atol=1e-12)


def test_scores_are_products_of_change_gradients_with_the_target(problem: Problem) -> None:
    table, u = scored(problem), direction(problem)
    for name, mask in masks(problem).items():
        if "row" in name:
            assert table["score"].to_numpy()[mask][0] == pytest.approx(float(removed(problem, mask) @ u), rel=1e-9)
    tasks = task_table(table).set_index("task_id")["score"]
    assert tasks["t1"] == pytest.approx(float(removed(problem, masks(problem)["task"]) @ u), rel=1e-9)


def test_query_scores_sum_to_the_task_score(problem: Problem) -> None:
    table = scored(problem)
    sums = table[table["role"] == "query"].groupby("task_id", sort=False)["score"].sum()
    actual = task_table(table)
    assert actual["task_id"].tolist() == problem.tasks.task_ids
    np.testing.assert_allclose(actual["score"], sums, rtol=1e-12)


def test_image_scores_sum_to_the_sum_of_all_rows(problem: Problem) -> None:
    table, images = scored(problem), image_table(scored(problem))
    assert images["score"].sum() == pytest.approx(table["score"].sum(), rel=1e-9)
    assert images["occurrences"].sum() == len(table)
    np.testing.assert_allclose(images["score"], images["score_support"] + images["score_query"], atol=1e-12)


def test_two_copies_of_a_task_have_equal_scores(problem: Problem) -> None:
    rows = problem.tasks.rows
    copy = rows[rows["task_id"] == "t2"].assign(task_id="copy")
    table = scored(problem, pd.concat([rows, copy]))
    one, two = (table[table["task_id"] == name] for name in ("t2", "copy"))
    np.testing.assert_allclose(one["score"], two["score"], rtol=1e-12)
    np.testing.assert_allclose(table["score"].iloc[: len(rows)], scored(problem)["score"], rtol=1e-12)


def test_scores_follow_the_order_of_tasks_and_rows(problem: Problem) -> None:
    shuffled = problem.tasks.rows.sample(frac=1, random_state=3)
    key = ["task_id", "role", "image_id"]
    actual, expected = (scored(problem, rows).set_index(key).sort_index() for rows in (shuffled, None))
    assert actual.index.equals(expected.index)
    np.testing.assert_allclose(actual["score"], expected["score"], rtol=1e-8, atol=1e-12)


def test_one_task_and_the_fewest_rows_can_be_scored() -> None:
    problem = tiny_problem(ways=2, shots=1, queries=1, count=1)
    rows = problem.tasks.rows
    last = np.arange(len(rows)) == len(rows) - 1
    tasks = from_rows(rows[~last], source="fewest")
    episodes = Episodes(tasks, problem.images, dtype=torch.float64)
    table = instance_table(problem.model, problem.params, direction(problem), episodes)
    assert table["role"].tolist() == ["support", "support", "query"]
    (score,) = task_table(table)["score"]
    assert score == pytest.approx(table["score"].iloc[2])
    gradient, _ = target_gradient(problem.model, problem.params, episodes)
    assert score == pytest.approx(float(gradient @ direction(problem)), rel=1e-9)


def test_a_gauss_newton_curvature_makes_a_task_helpful_for_itself() -> None:
    """With the task itself as the target, its score is v^T (C + shift)^-1 v."""
    problem = tiny_problem(ways=2, shots=1, queries=2, count=3)
    curvature = Curvature("gauss-newton", problem.model, problem.params, problem.episodes)
    for task_id in problem.tasks.task_ids:
        target = Episodes(problem.tasks.select([task_id]), problem.images, dtype=torch.float64)
        v, _ = target_gradient(problem.model, problem.params, target)
        solution = conjugate_gradients(curvature, v, shift=0.5, tolerance=1e-8, iterations=200)
        table = instance_table(problem.model, problem.params, solution.x, problem.episodes)
        assert task_table(table).set_index("task_id")["score"][task_id] == pytest.approx(float(v @ solution.x))
        assert float(v @ solution.x) > 0


def test_scores_that_cannot_rank_are_refused(problem: Problem) -> None:
    u = direction(problem)
    for bad, fault in ((0 * u, ALL_ZERO), (u * float("nan"), NOT_FINITE)):
        with pytest.raises(ScoresError) as caught:
            instance_table(problem.model, problem.params, bad, problem.episodes)
        assert caught.value.fault == fault


def test_an_unknown_curvature_is_refused(problem: Problem) -> None:
    with pytest.raises(UserError) as caught:
        Curvature("fisher", problem.model, problem.params, problem.episodes)
    assert "'fisher'" in caught.value.what
    assert "gauss-newton, exact" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("all", Target()),
        ("h1", Target(("h1",))),
        ("h1, h2,", Target(("h1", "h2"))),
        ("h1/a.png", Target(("h1",), "a.png")),
        ("h1/dir/a.png", Target(("h1",), "dir/a.png")),
    ],
)
def test_targets_round_trip_through_text(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert Target.parse(str(target)) == target


def test_a_target_that_is_not_held_out_is_refused(problem: Problem) -> None:
    tasks: TaskList = problem.tasks
    rows = tasks.rows[tasks.rows["task_id"] == "t0"]
    support = rows.loc[rows["role"] == "support", "image_id"].iloc[0]
    for text in ("t9", "t0,t9", "t9/a"):
        with pytest.raises(UserError, match="'t9'"):
            Target.parse(text).weighted(tasks)
    for text in (f"t0/{support}", "t0/cat"):
        with pytest.raises(UserError) as caught:
            Target.parse(text).weighted(tasks)
        assert all(repr(name) in caught.value.what for name in text.split("/"))


@pytest.mark.parametrize("text", ["", " , "])
def test_an_empty_target_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="TASK/IMAGE"):
        Target.parse(text)
