"""Self-influence by directions against ``g^T (C + shift I)^-1 g`` with dense matrices and plain gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from core.influence.curvature import Curvature
from core.influence.scores import instance_table, task_table
from core.influence.self_influence import directions, relative_error
from core.influence.solvers import Basis, lanczos
from core.maml.episodes import Episodes
from tests.influence import reference
from tests.problems import Problem, tiny_problem

SHIFT, PROBES = 0.7, 400


@dataclass(frozen=True)
class Known:
    """A problem with its curvature as a matrix, a basis of full rank, and the plain gradient of everything.

    Attributes:
        tasks, query, support: ``(items, P)`` in the order of the task list.
    """

    problem: Problem
    curvature: Tensor
    basis: Basis
    tasks: Tensor
    query: Tensor
    support: Tensor

    def exact(self, gradients: Tensor) -> np.ndarray:
        """``g^T (C + shift I)^-1 g`` of every row."""
        shifted = self.curvature + SHIFT * torch.eye(len(self.curvature), dtype=torch.float64)
        return (gradients * torch.linalg.solve(shifted, gradients.T).T).sum(1).numpy()


@pytest.fixture(scope="module")
def known() -> Known:
    """Seven tasks, whose query rows have more logits than the model has parameters."""
    problem = tiny_problem(count=7)
    problem = replace(problem, episodes=Episodes(problem.tasks, problem.images, dtype=torch.float64, chunk=7))
    ids = problem.tasks.task_ids
    product = Curvature("gauss-newton", problem.model, problem.params, problem.episodes)
    size = len(reference.flat_params(problem))
    curvature = torch.stack([product(e) for e in torch.eye(size, dtype=torch.float64)])
    return Known(
        problem,
        curvature,
        lanczos(lambda v: curvature @ v, curvature[0], size),
        torch.stack([reference.gradient(problem, task_id) for task_id in ids]),
        torch.cat([reference.query_row_gradients(problem, task_id) for task_id in ids]),
        torch.cat([reference.support_row_gradients(problem, task_id) for task_id in ids]),
    )


def test_the_basis_is_the_whole_curvature(known: Known) -> None:
    """The same added to all logits changes nothing: of the directions without curvature the basis needs but one."""
    vectors, values = known.basis.vectors, torch.from_numpy(known.basis.values)
    assert len(values) >= len(known.curvature) - 3
    assert ((vectors.T * values) @ vectors - known.curvature).norm() <= 1e-9 * known.curvature.norm()


def test_a_direction_for_every_vector_is_exact_for_every_row_and_task(known: Known) -> None:
    problem = known.problem
    ways = directions(known.basis, SHIFT, len(known.basis.values), 0)
    assert ways.shape == known.basis.vectors.shape
    tables = [instance_table(problem.model, problem.params, way, problem.episodes) for way in ways]
    rows = sum(table["score"].to_numpy() ** 2 for table in tables)
    query = (problem.tasks.rows["role"] == "query").to_numpy()
    np.testing.assert_allclose(rows[query], known.exact(known.query), rtol=1e-8)
    np.testing.assert_allclose(rows[~query], known.exact(known.support), rtol=1e-8)
    tasks = sum(task_table(table)["score"].to_numpy() ** 2 for table in tables)
    np.testing.assert_allclose(tasks, known.exact(known.tasks), rtol=1e-8)


@pytest.mark.parametrize("exact", [0, 10])
@pytest.mark.parametrize("items", ["query", "support", "tasks"])
def test_probes_are_right_on_average(known: Known, items: str, exact: int) -> None:
    """The square of a normal value has twice its squared mean as variance; rows of large value must not hide others."""
    gradients: Tensor = getattr(known, items)
    ways = directions(known.basis, SHIFT, exact, PROBES, seed=3)
    assert ways.shape == (exact + PROBES, len(known.curvature))
    squares = ((gradients @ ways.T) ** 2).numpy()
    actual, expected = squares.sum(1), known.exact(gradients)
    sketched = expected - squares[:, :exact].sum(1)  # what is left for the probes
    errors = np.abs(actual - expected) / (sketched * (2 / PROBES) ** 0.5)
    assert (errors <= 3).mean() >= 0.98
    assert errors.max() <= 4
    assert relative_error(actual, expected) < 3 * (2 / PROBES) ** 0.5


def test_probes_are_orthogonal_to_exact_directions(known: Known) -> None:
    """With all vectors exact, probes add nothing; with some, they lie across them."""
    full = directions(known.basis, SHIFT, len(known.basis.values), 5)
    products = known.query @ full.T
    assert products[:, -5:].norm() <= 1e-8 * products[:, :-5].norm()
    partial = directions(known.basis, SHIFT, 10, 5)
    assert (partial[10:] @ known.basis.vectors[-10:].T).abs().max() <= 1e-10
    root = known.basis.inverse(SHIFT, power=0.5)
    assert torch.allclose(partial[:10], root(known.basis.vectors[-10:]))


def test_a_basis_of_low_rank_damps_the_rest_by_the_shift_alone(known: Known) -> None:
    basis = lanczos(lambda v: known.curvature @ v, known.curvature[0], 12)
    ways = directions(basis, SHIFT, 12, 4000, seed=1)
    actual = ((known.tasks @ ways.T) ** 2).sum(1)
    expected = (known.tasks * basis.inverse(SHIFT)(known.tasks)).sum(1)
    np.testing.assert_allclose(actual, expected, rtol=4 * (2 / 4000) ** 0.5)


def test_more_probes_are_more_accurate(known: Known) -> None:
    errors = [
        relative_error(((known.query @ directions(known.basis, SHIFT, 0, n).T) ** 2).sum(1).numpy(), expected)
        for expected in (known.exact(known.query),)
        for n in (10, 100, 1000, 10000)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_the_seed_draws_the_probes(known: Known) -> None:
    first, repeated, other = (directions(known.basis, SHIFT, 2, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, repeated)
    assert torch.equal(first[:2], other[:2])
    assert not torch.allclose(first[2:], other[2:])


def test_the_relative_error_is_the_median_over_items() -> None:
    exact = np.array([1.0, 2.0, 4.0])
    assert relative_error(exact, exact) == 0
    assert relative_error(np.array([1.1, 2.0, 40.0]), exact) == pytest.approx(0.1)
    assert relative_error(0.75 * exact, exact) == pytest.approx(0.25)
