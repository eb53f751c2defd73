"""dattri's TracIn and TRAK on whole tasks, against plain autograd and the formulas of the papers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from core.baselines.libraries import require
from core.baselines.trak import RankError, projected_dimension, trak_scores
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList, from_rows
from tests.baselines.second_opinions import dattri_tracin
from tests.influence import reference
from tests.problems import Problem, tiny_problem, tiny_tasks

TRAIN = 13  # not a multiple of the chunk


def episodes(problem: Problem, tasks: TaskList) -> Episodes:
    return Episodes(tasks, problem.images, dtype=torch.float64, chunk=3)


def heldout(problem: Problem, count: int = 4) -> TaskList:
    return tiny_tasks(problem.images, ways=3, shots=1, queries=3, count=count, seed=9)


def moved(params: Params, seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {k: v + 0.1 * torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in params.items()}


def gradients(problem: Problem, params: Params, tasks: TaskList) -> np.ndarray:
    there = replace(problem, params=params, tasks=tasks)
    return torch.stack([reference.gradient(there, task_id) for task_id in tasks.task_ids]).numpy()


def losses(problem: Problem, params: Params, tasks: TaskList) -> np.ndarray:
    there = replace(problem, params=params, tasks=tasks)
    flat = reference.leaf(there)
    return np.array([reference.task_loss(there, flat, task_id).item() for task_id in tasks.task_ids])


def test_tracin_is_the_sum_of_gradient_products() -> None:
    problem = tiny_problem(count=TRAIN)
    other = heldout(problem)
    checkpoints, rates = [problem.params, moved(problem.params, 1)], [0.3, 0.05]
    got = dattri_tracin(problem.model, checkpoints, rates, problem.episodes, episodes(problem, other))
    expected = sum(
        rate * gradients(problem, p, problem.tasks) @ gradients(problem, p, other).T
        for p, rate in zip(checkpoints, rates, strict=True)
    )
    assert got.shape == (TRAIN, 4)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def trak_by_hand(
    problem: Problem, params: Params, other: TaskList, ensemble: int, dimension: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """``phi_t^T (Phi^T Phi)^-1 phi_k`` as ``(N, T)`` and ``1 - p`` as ``(N,)``; only the projection is dattri's."""

    def features(tasks: TaskList) -> np.ndarray:
        p = np.exp(-losses(problem, params, tasks))
        gradient = torch.from_numpy(-gradients(problem, params, tasks) / (1 - p)[:, None])  # of log(p / (1 - p))
        module = require("dattri.func.projection")
        project = module.random_project(gradient, len(gradient), dimension, 32, seed, "rademacher", device="cpu")
        return project(gradient, ensemble_id=ensemble).numpy()

    phi = features(problem.tasks)
    return phi @ np.linalg.inv(phi.T @ phi) @ features(other).T, 1 - np.exp(-losses(problem, params, problem.tasks))


@pytest.mark.parametrize("checkpoints", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_trak_follows_its_formula(checkpoints: int) -> None:
    problem = tiny_problem(count=TRAIN)
    other = heldout(problem)
    params = [problem.params, moved(problem.params, 1)][:checkpoints]
    steps: list[int] = []
    got = trak_scores(
        problem.model,
        params,
        problem.episodes,
        episodes(problem, other),
        dimension=5,
        seed=7,
        on_step=steps.append,
    )
    parts = [trak_by_hand(problem, p, other, ensemble, 5, 7) for ensemble, p in enumerate(params)]
    expected = np.mean([part[0] for part in parts], 0) * np.mean([part[1] for part in parts], 0)[:, None]
    assert got.shape == (TRAIN, 4)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert sum(steps) == checkpoints * (TRAIN + 4)


def test_trak_scores_a_task_as_helpful_for_itself_and_its_copy_equally() -> None:
    problem = tiny_problem(count=TRAIN)
    first = problem.tasks.rows[problem.tasks.rows["task_id"] == problem.tasks.task_ids[0]]
    tasks = from_rows(pd.concat([problem.tasks.rows, first.assign(task_id="double")]), source="test")
    train = episodes(problem, tasks)
    got = trak_scores(problem.model, [problem.params], train, train)
    np.testing.assert_allclose(got[0], got[-1], rtol=1e-9)
    assert (np.diag(got) > 0).all()


def test_trak_takes_no_more_features_than_can_be_inverted() -> None:
    assert projected_dimension(512, 2000, 30000) == 512
    assert projected_dimension(512, 13, 30000) == 6
    assert projected_dimension(512, 2000, 71) == 35
    assert projected_dimension(512, 1, 71) == 1


def test_copies_of_a_task_do_not_count_as_features() -> None:
    problem = tiny_problem(count=1)
    copies = [problem.tasks.rows.assign(task_id=f"copy {copy}") for copy in range(TRAIN)]
    train = episodes(problem, from_rows(pd.concat(copies), source="test"))
    with pytest.raises(RankError):
        trak_scores(problem.model, [problem.params], train, train)


def test_single_precision_gives_nearly_the_same_scores() -> None:
    problem = tiny_problem(count=TRAIN)
    single = Episodes(problem.tasks, problem.images, chunk=5)
    params = {name: value.float() for name, value in problem.params.items()}
    expected = trak_scores(problem.model, [problem.params], problem.episodes, problem.episodes)
    got = trak_scores(problem.model, [params], single, single)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_tasks_of_unequal_shape_are_refused() -> None:
    problem = tiny_problem()
    mixed = problem.tasks.rows.drop(index=len(problem.tasks.rows) - 1)
    uneven = episodes(problem, from_rows(mixed, source="test"))
    with pytest.raises(UserError) as caught:
        trak_scores(problem.model, [problem.params], problem.episodes, uneven)
    assert all(value in caught.value.what for value in ("5", "6", "query"))


def test_gradients_that_are_not_finite_are_refused_and_not_replaced_by_zero() -> None:
    problem = tiny_problem()
    broken = {name: value * torch.nan for name, value in problem.params.items()}
    with pytest.raises(UserError) as caught:
        trak_scores(problem.model, [broken], problem.episodes, problem.episodes)
    assert caught.type is UserError  # neither RankError nor ScoresError, as zeros would give


def test_trak_needs_a_checkpoint() -> None:
    problem = tiny_problem()
    with pytest.raises(UserError):
        trak_scores(problem.model, [], problem.episodes, problem.episodes)
