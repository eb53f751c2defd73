"""The settings of steps and the selection of the snapshot that they begin at."""

from __future__ import annotations

import numpy as np
import pytest

from core.editing.steps import select_snapshot
from core.maml.cost import Cost
from core.maml.evaluation import evaluate
from tests.problems import Problem, tiny_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem(ways=3, shots=2, queries=2, count=6, steps=1)


def test_the_candidate_with_the_lowest_loss_is_selected(problem: Problem) -> None:
    candidates = [{name: scale * value for name, value in problem.params.items()} for scale in (30.0, 1.0, 0.5, 30.0)]
    found = select_snapshot(problem.model, candidates, problem.episodes, 6)
    expected = [float(evaluate(problem.model, one, problem.episodes).loss.mean()) for one in candidates]
    assert found.losses == pytest.approx(expected)
    assert found.number == int(np.argmin(expected))
    assert found.params is candidates[found.number]
    assert found.cost == Cost(evaluations=24)
    assert select_snapshot(problem.model, candidates[::3], problem.episodes, 6).number == 0, "the earliest of equals"


def test_all_candidates_are_compared_on_the_same_tasks(problem: Problem) -> None:
    found = select_snapshot(problem.model, [problem.params] * 3, problem.episodes, 2, seed=5)
    assert (found.tasks, found.number, len(set(found.losses))) == (2, 0, 1)
    some = np.sort(np.random.default_rng([5, 47]).permutation(6)[:2])
    each = evaluate(problem.model, problem.params, problem.episodes).loss
    assert found.losses[0] == pytest.approx(each[some].mean())
    assert select_snapshot(problem.model, [problem.params], problem.episodes, 100).tasks == 6


def test_a_candidate_with_a_loss_that_is_not_finite_is_never_selected(problem: Problem) -> None:
    broken = {name: float("nan") * value for name, value in problem.params.items()}
    assert select_snapshot(problem.model, [broken, problem.params], problem.episodes, 6).number == 1
