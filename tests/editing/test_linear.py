"""The linear edit and the gradient of its changes, in double precision against plain autograd and dense matrices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.editing.linear import change_gradient, row_change, touched_tasks
from core.editing.methods import linear
from core.influence.methods import SolveSettings
from core.maml.episodes import Episodes
from core.maml.loaded import Compute, Loaded
from core.maml.passes import passes_of
from core.maml.vectors import flatten
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.tasks.tasklist import TaskList
from core.workspace.runs import RunWriter
from tests.influence import reference
from tests.influence.test_implicit import implicit_problem
from tests.problems import Problem, tiny_problem, with_weights

SHAPES: list[dict[str, Any]] = [
    {"ways": 3, "shots": 2, "queries": 2, "count": 3, "steps": 1},
    {"ways": 3, "shots": 2, "queries": 1, "count": 2, "steps": 2, "pooling": "max", "activation": "relu"},
    {"ways": 3, "shots": 1, "queries": 2, "count": 2, "steps": 2, "algorithm": "fomaml"},
    {"ways": 3, "shots": 2, "queries": 1, "count": 2, "steps": 2, "algorithm": "anil"},
    {"ways": 2, "shots": 2, "queries": 2, "count": 2, "steps": 2, "algorithm": "meta-sgd"},
]
After = tuple[np.ndarray, np.ndarray]
"""Weights and labels."""


def close(have: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    assert have.shape == expected.shape
    assert float((have - expected).norm()) <= tolerance * float(expected.norm())


def uneven(problem: Problem) -> Problem:
    """Return the problem with uneven weights, one of them 0."""
    weights = np.random.default_rng(1).uniform(0.2, 1.8, len(problem.tasks.rows))
    weights[-1] = 0
    episodes = with_weights(problem.episodes, weights)
    return replace(problem, episodes=episodes, tasks=episodes.tasks)


@pytest.fixture(params=SHAPES, ids=lambda shape: "-".join(str(v) for v in shape.values()))
def problem(request: pytest.FixtureRequest) -> Problem:
    return uneven(tiny_problem(**request.param))


def rows_of(problem: Problem, task: int, role: str) -> np.ndarray:
    rows = problem.tasks.rows
    return np.flatnonzero((rows["task_id"] == problem.tasks.task_ids[task]) & (rows["role"] == role))


def relabelled(problem: Problem, roles: tuple[str, ...] = ("support", "query")) -> After:
    """Relabel two rows of each role in the first task, and remove the last row of each role."""
    weights, labels = (problem.tasks.rows[name].to_numpy().copy() for name in ("weight", "label"))
    for role in roles:
        changed_rows = rows_of(problem, 0, role)
        labels[changed_rows[:2]] = (labels[changed_rows[:2]] + 1) % problem.tasks.ways
        if len(changed_rows) > 2:
            weights[changed_rows[-1]] = 0
    return weights, labels


def objective_gradient(problem: Problem, after: After | None = None) -> Tensor:
    """Return the gradient by plain autograd."""
    if after is not None:
        problem = replace(problem, tasks=TaskList(problem.tasks.rows.assign(weight=after[0], label=after[1])))
    return torch.stack([reference.gradient(problem, task) for task in problem.tasks.task_ids]).sum(0)


def changed(problem: Problem, after: After) -> Tensor:
    return change_gradient(problem.model, problem.params, problem.episodes, *after)


@pytest.mark.parametrize("roles", [("support",), ("query",), ("support", "query")], ids="-".join)
def test_relabelling_changes_the_gradient_of_the_objective(problem: Problem, roles: tuple[str, ...]) -> None:
    after = relabelled(problem, roles)
    close(changed(problem, after), objective_gradient(problem) - objective_gradient(problem, after))


def test_removals_in_other_tasks_are_independent_of_relabels(problem: Problem) -> None:
    weights, labels = relabelled(problem)
    before = problem.tasks.rows["label"].to_numpy()
    with_removal = weights.copy()
    with_removal[rows_of(problem, -1, "support")[0]] = 0
    alone = problem.tasks.rows["weight"].to_numpy().copy()
    alone[rows_of(problem, -1, "support")[0]] = 0
    close(
        changed(problem, (with_removal, labels)),
        changed(problem, (weights, labels)) + changed(problem, (alone, before)),
    )


def test_unchanged_labels_give_exactly_the_removal_gradient(problem: Problem) -> None:
    weights, _ = relabelled(problem)
    same = problem.tasks.rows["label"].to_numpy()
    one = change_gradient(problem.model, problem.params, problem.episodes, weights)
    assert torch.equal(one, changed(problem, (weights, same)))


def test_a_removed_task_contributes_its_total_gradient_for_any_labels(problem: Problem) -> None:
    weights, labels = relabelled(problem)
    weights[rows_of(problem, 0, "query")] = 0
    change = row_change(problem.episodes, weights, labels)
    assert not change.relabelled.any()
    assert touched_tasks(problem.episodes, change).tolist() == [0]
    close(changed(problem, (weights, labels)), reference.gradient(problem, problem.tasks.task_ids[0]))


@pytest.mark.parametrize("inverse", ["cg", "ekfac"])
@pytest.mark.parametrize("backbone", ["mlp", pytest.param("convnet", marks=pytest.mark.slow)])
def test_relabelling_with_implicit_adaptation(backbone: str, inverse: str) -> None:
    problem = implicit_problem(backbone, inverse)
    after = relabelled(problem)
    table = TaskList(problem.tasks.rows.assign(weight=after[0], label=after[1]))
    episodes = Episodes(table, problem.images, dtype=torch.float64, chunk=2)
    passes = passes_of(problem.model)

    def gradient(of: Episodes) -> Tensor:
        return torch.stack([flatten(passes.gradient(problem.params, chunk.task)[0]) for chunk in of.chunks()]).sum(0)

    close(changed(problem, after), gradient(problem.episodes) - gradient(episodes), 1e-6)


def test_the_chunk_size_does_not_matter() -> None:
    problem = uneven(tiny_problem(ways=3, shots=2, queries=2, count=4))
    rows = problem.tasks.rows
    labels = np.where(np.arange(len(rows)) % 5 == 0, (rows["label"] + 1) % 3, rows["label"])
    single = Episodes(problem.tasks, problem.images, dtype=torch.float64, chunk=1)
    weights = rows["weight"].to_numpy()
    one, other = (
        change_gradient(problem.model, problem.params, e, weights, labels) for e in (problem.episodes, single)
    )
    close(one, other, 1e-12)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape["shots"] > 1], ids=str)
def test_the_linear_edit_is_the_sum_of_the_influence_functions(shape: dict[str, Any], tmp_path: Path) -> None:
    """Remove a whole task, a query row and a support row together."""
    problem = tiny_problem(**shape)
    ids, rows = problem.tasks.task_ids, problem.tasks.rows[["task_id", "role", "image_id"]]
    instances = {
        tuple(rows.iloc[rows_of(problem, 0, "query")[-1]]),
        tuple(rows.iloc[rows_of(problem, 0, "support")[0]]),
    }
    changes = Changes(tasks=frozenset({ids[-1]}), instances=frozenset(instances))
    compute = Compute("cpu", "float64")
    loaded = Loaded(problem.model, problem.params, problem.images, problem.tasks, problem.tasks, compute, {})
    settings = SolveSettings(curvature_tasks=0, damping=0.3, tolerance=1e-12, iterations=500)
    edit = linear(loaded, changes, settings, RunWriter(tmp_path), Progress())

    gradient = reference.query_row_gradients(problem, ids[0])[-1] + reference.support_row_gradients(problem, ids[0])[0]
    gradient = gradient + reference.gradient(problem, ids[-1])
    shift = edit.figures["solver"]["damping"] + problem.model.delta
    matrix = reference.dense_gauss_newton(problem, ids) + shift * torch.eye(len(gradient), dtype=torch.float64)
    step = torch.linalg.solve(matrix, gradient)
    close(flatten(edit.params) - reference.flat_params(problem), step, 1e-7)
    target = objective_gradient(problem) / len(ids)
    assert edit.figures["predicted_loss_change"] == pytest.approx(float(target @ step), rel=1e-6)
    assert edit.figures["relative_step"] == pytest.approx(float(step.norm() / reference.flat_params(problem).norm()))
    quick = linear(loaded, changes, settings, RunWriter(tmp_path / "quick"), Progress(), predict=False)
    assert torch.equal(flatten(quick.params), flatten(edit.params))
    assert "predicted_loss_change" not in quick.figures
