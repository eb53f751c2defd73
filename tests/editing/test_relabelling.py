"""What relabelled rows change in the gradient of the objective, against plain autograd on the changed tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.editing.linear import change_gradient, row_change, touched_tasks
from core.maml.episodes import Episodes
from core.maml.passes import passes_of
from core.maml.vectors import flatten
from core.tasks.tasklist import TaskList
from tests.influence import reference
from tests.influence.test_implicit import implicit_problem
from tests.problems import Problem, tiny_problem

SHAPES: list[dict[str, Any]] = [
    {"ways": 3, "shots": 2, "queries": 2, "count": 3, "steps": 1},
    {"ways": 3, "shots": 2, "queries": 1, "count": 2, "steps": 2, "pooling": "max", "activation": "relu"},
    {"ways": 3, "shots": 1, "queries": 2, "count": 2, "steps": 2, "algorithm": "fomaml"},
    {"ways": 3, "shots": 2, "queries": 1, "count": 2, "steps": 2, "algorithm": "anil"},
    {"ways": 2, "shots": 2, "queries": 2, "count": 2, "steps": 2, "algorithm": "meta-sgd"},
]
After = tuple[np.ndarray, np.ndarray]
"""Weights and labels."""


def close(have: Tensor, want: Tensor, tolerance: float = 1e-8) -> None:
    assert have.shape == want.shape
    assert float((have - want).norm()) <= tolerance * float(want.norm())


def uneven(problem: Problem) -> Problem:
    """The same with uneven weights, one of them 0."""
    weights = np.random.default_rng(1).uniform(0.2, 1.8, len(problem.tasks.rows))
    weights[-1] = 0
    episodes = problem.episodes.with_weights(weights)
    return replace(problem, episodes=episodes, tasks=episodes.tasks)


@pytest.fixture(params=SHAPES, ids=lambda shape: "-".join(str(v) for v in shape.values()))
def problem(request: pytest.FixtureRequest) -> Problem:
    return uneven(tiny_problem(**request.param))


def rows_of(problem: Problem, task: int, role: str) -> np.ndarray:
    rows = problem.tasks.rows
    return np.flatnonzero((rows["task_id"] == problem.tasks.task_ids[task]) & (rows["role"] == role))


def relabelled(problem: Problem, roles: tuple[str, ...] = ("support", "query")) -> After:
    """In the first task two rows of each role get another label, and the last row of each role leaves."""
    weights, labels = (problem.tasks.rows[name].to_numpy().copy() for name in ("weight", "label"))
    for role in roles:
        here = rows_of(problem, 0, role)
        labels[here[:2]] = (labels[here[:2]] + 1) % problem.tasks.ways
        if len(here) > 2:
            weights[here[-1]] = 0
    return weights, labels


def objective_gradient(problem: Problem, after: After | None = None) -> Tensor:
    """By plain autograd."""
    if after is not None:
        problem = replace(problem, tasks=TaskList(problem.tasks.rows.assign(weight=after[0], label=after[1])))
    return torch.stack([reference.gradient(problem, task) for task in problem.tasks.task_ids]).sum(0)


def changed(problem: Problem, after: After) -> Tensor:
    return change_gradient(problem.model, problem.params, problem.episodes, *after)


@pytest.mark.parametrize("roles", [("support",), ("query",), ("support", "query")], ids="-".join)
def test_it_is_the_change_of_the_objectives_gradient(problem: Problem, roles: tuple[str, ...]) -> None:
    after = relabelled(problem, roles)
    close(changed(problem, after), objective_gradient(problem) - objective_gradient(problem, after))


def test_removals_in_other_tasks_count_as_they_do_alone(problem: Problem) -> None:
    weights, labels = relabelled(problem)
    before = problem.tasks.rows["label"].to_numpy()
    gone = weights.copy()
    gone[rows_of(problem, -1, "support")[0]] = 0
    alone = problem.tasks.rows["weight"].to_numpy().copy()
    alone[rows_of(problem, -1, "support")[0]] = 0
    close(changed(problem, (gone, labels)), changed(problem, (weights, labels)) + changed(problem, (alone, before)))


def test_nothing_relabelled_is_a_removal_to_the_bit(problem: Problem) -> None:
    weights, _ = relabelled(problem)
    same = problem.tasks.rows["label"].to_numpy()
    one = change_gradient(problem.model, problem.params, problem.episodes, weights)
    assert torch.equal(one, changed(problem, (weights, same)))


def test_a_task_that_leaves_counts_whole_whatever_its_labels(problem: Problem) -> None:
    weights, labels = relabelled(problem)
    weights[rows_of(problem, 0, "query")] = 0
    change = row_change(problem.episodes, weights, labels)
    assert not change.moved.any()
    assert touched_tasks(problem.episodes, change).tolist() == [0]
    close(changed(problem, (weights, labels)), reference.gradient(problem, problem.tasks.task_ids[0]))


@pytest.mark.parametrize("inverse", ["cg", "ekfac"])
@pytest.mark.parametrize("backbone", ["mlp", "convnet"])
def test_implicit_adaptation_too(backbone: str, inverse: str) -> None:
    problem = implicit_problem(backbone, inverse)
    after = relabelled(problem)
    table = TaskList(problem.tasks.rows.assign(weight=after[0], label=after[1]))
    episodes = Episodes(table, problem.images, dtype=torch.float64, chunk=2)
    passes = passes_of(problem.model)

    def gradient(of: Episodes) -> Tensor:
        return torch.stack([flatten(passes.gradient(problem.params, chunk.task)[0]) for chunk in of.chunks()]).sum(0)

    close(changed(problem, after), gradient(problem.episodes) - gradient(episodes), 1e-6)


def test_chunks_change_nothing() -> None:
    problem = uneven(tiny_problem(ways=3, shots=2, queries=2, count=4))
    rows = problem.tasks.rows
    labels = np.where(np.arange(len(rows)) % 5 == 0, (rows["label"] + 1) % 3, rows["label"])
    single = Episodes(problem.tasks, problem.images, dtype=torch.float64, chunk=1)
    weights = rows["weight"].to_numpy()
    one, other = (
        change_gradient(problem.model, problem.params, e, weights, labels) for e in (problem.episodes, single)
    )
    close(one, other, 1e-12)
