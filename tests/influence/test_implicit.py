"""Implicit adaptation against dense matrices: inner optimum, inner-IF, P, total gradient, total Hessian, all scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jacfwd

from core.influence.curvature import Curvature, task_gradients
from core.influence.inner import InnerReport, inner_report
from core.influence.scores import instance_table, task_table
from core.maml.adaptation import Implicit
from core.maml.backbone import MLP, ConvNet
from core.maml.episodes import Episodes, vmap_tasks
from core.maml.objective import Bilevel, Task
from core.maml.vectors import flatten
from core.runtime.errors import UserError
from tests.influence.reference import flat_params, forward, task_tensors
from tests.influence.test_dense import close
from tests.problems import Problem, tiny_images, tiny_problem, tiny_tasks, with_weights

INNER = 1e-11


def implicit_problem(backbone: str, inverse: str = "cg", tolerance: float = INNER) -> Problem:
    images = tiny_images()
    tasks = tiny_tasks(images, ways=3, shots=2, queries=2, count=3)
    network = {
        "linear": MLP(3, hidden=(), shape=(7, 7, 1), activation="tanh"),
        "mlp": MLP(3, hidden=(4,), shape=(7, 7, 1), shrink=7, activation="tanh"),
        "convnet": ConvNet(3, filters=2, shape=(7, 7, 1), blocks=1),
    }[backbone]
    params = {k: v * 2 for k, v in network.init(3, torch.float64).items()}
    proximity = {"linear": 0.5, "mlp": 0.8, "convnet": 6.0}[backbone]
    model = Bilevel(network, Implicit(proximity, tolerance, inverse), delta=0.2)
    episodes = Episodes(tasks, images, dtype=torch.float64, chunk=2)
    weights = np.random.default_rng(1).uniform(0.3, 1.7, len(tasks.rows))
    episodes = with_weights(episodes, weights)
    return Problem(images, episodes.tasks, model, params, episodes)


@dataclass(frozen=True)
class Dense:
    """Everything about one task, from second derivatives by plain autograd at the inner optimum."""

    theta: Tensor
    inner_hessian: Tensor
    rows: Tensor
    gradient: Tensor
    hessian: Tensor
    query_rows: Tensor
    support_rows: Tensor
    effect: Tensor


def dense(problem: Problem, task_id: str) -> Dense:
    """The formulas of the paper and of iMAML with matrices; the third-order part by one directional derivative."""
    xs, ys, s, xq, yq, q = task_tensors(problem, task_id)
    lam, delta = flat_params(problem), problem.model.adaptation.proximity
    identity = torch.eye(len(lam), dtype=lam.dtype)

    def support(theta: Tensor) -> Tensor:
        return F.cross_entropy(forward(problem, theta, xs), ys, reduction="none")

    def inner(theta: Tensor) -> Tensor:
        return (s * support(theta)).sum() / len(s)

    def query(theta: Tensor) -> Tensor:
        return q * F.cross_entropy(forward(problem, theta, xq), yq, reduction="none") / len(q)

    hessian_of = partial(torch.autograd.functional.hessian, vectorize=True)
    jacobian_of = partial(torch.autograd.functional.jacobian, vectorize=True)
    theta = lam.clone()
    for _ in range(60):  # Newton's method, from lambda
        slope = jacobian_of(inner, theta) + delta * (theta - lam)
        theta = theta - torch.linalg.solve(hessian_of(inner, theta) + delta * identity, slope)
        if slope.norm() < 1e-14:
            break
    assert slope.norm() < 1e-12
    inner_hessian = hessian_of(inner, theta) + delta * identity
    j = delta * torch.linalg.inv(inner_hessian)
    outer = jacobian_of(lambda t: query(t).sum(), theta)
    u = torch.linalg.solve(inner_hessian, outer)
    rows = jacobian_of(support, theta)  # (S, P)
    w = -torch.linalg.solve(inner_hessian, rows.T).T  # inner-IFs, (S, P)

    def curved(t: Tensor) -> Tensor:
        """d L_I / d theta . u, with u held constant."""
        (slope,) = torch.autograd.grad(inner(t), t, create_graph=True)
        return slope @ u

    hessian = j @ (hessian_of(lambda t: query(t).sum(), theta) - hessian_of(curved, theta)) @ j
    effect = -(w @ outer)  # P(z)
    support_rows = []
    for row in range(len(s)):

        def change(t: Tensor, row: int = row) -> Tensor:
            """Its derivative by theta is that of d L_O / d s_z = -P(z) / S, w and u held constant."""
            (up,) = torch.autograd.grad(query(t).sum(), t, create_graph=True)
            (slope,) = torch.autograd.grad(inner(t), t, create_graph=True)
            (bend,) = torch.autograd.grad(slope @ w[row], t, create_graph=True)
            return up @ w[row] - bend @ u - torch.autograd.grad(support(t)[row], t, create_graph=True)[0] @ u

        support_rows.append(j @ jacobian_of(change, theta) / len(s))
    query_rows = jacobian_of(query, theta) @ j / torch.where(q > 0, q, 1)[:, None]
    return Dense(theta, inner_hessian, rows, j @ outer, hessian, query_rows, torch.stack(support_rows), effect)


@pytest.fixture(params=[pytest.param("linear", marks=pytest.mark.slow), "mlp", "convnet"], scope="module")
def problem(request: pytest.FixtureRequest) -> Problem:
    return implicit_problem(request.param)


@pytest.fixture(scope="module")
def truth(problem: Problem) -> list[Dense]:
    return [dense(problem, task_id) for task_id in problem.tasks.task_ids]


def u_of(problem: Problem) -> Tensor:
    return torch.linspace(-1, 2, len(flat_params(problem)), dtype=torch.float64)


@pytest.fixture(scope="module")
def table(problem: Problem) -> pd.DataFrame:
    return instance_table(problem.model, problem.params, u_of(problem), problem.episodes)


def test_the_inner_optimum(problem: Problem, truth: list[Dense]) -> None:
    for chunk in problem.episodes.chunks():
        theta = vmap_tasks(problem.model.adapt)(problem.params, chunk.task)
        for row, position in enumerate(chunk.positions):
            close(flatten({k: v[row] for k, v in theta.items()}), truth[position].theta)


def test_total_gradients(problem: Problem, truth: list[Dense]) -> None:
    actual = task_gradients(problem.model, problem.params, problem.episodes)
    close(actual, torch.stack([one.gradient for one in truth]))


def test_the_exact_total_hessian(problem: Problem, truth: list[Dense]) -> None:
    product = Curvature("exact", problem.model, problem.params, problem.episodes)
    v = torch.randn(len(truth[0].theta), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    close(product(v), torch.stack([one.hessian for one in truth]).sum(0) @ v)


def test_scores_of_tasks_query_rows_and_support_rows(problem: Problem, truth: list[Dense], table: pd.DataFrame) -> None:
    u = u_of(problem)
    for role, expected in (
        ("support", [t.support_rows @ u for t in truth]),
        ("query", [t.query_rows @ u for t in truth]),
    ):
        close(table.loc[table["role"] == role, "score"].to_numpy(), torch.cat(expected))
    close(task_table(table)["score"].to_numpy(), torch.stack([t.gradient @ u for t in truth]))


def inner_influence(problem: Problem, position: int) -> Tensor:
    """Return inner-IF (Thm 4.6) of every support row of a task, ``(S, P)``, per unit of its weight.

    It is what the scores differentiate through: theta_k without row z, of weight 1, is about theta_k - inner-IF(z).
    """
    task = one_task(problem, position)
    return jacfwd(lambda s: flatten(problem.model.adapt(problem.params, task._replace(s=s))))(task.s).T


def one_task(problem: Problem, position: int) -> Task:
    (chunk,) = problem.episodes.chunks(np.array([position]))
    return Task(*(value[0] for value in chunk.task))


def effects(table: pd.DataFrame, task_id: str) -> np.ndarray:
    """Return P (Thm 4.7) of every support row of a task."""
    return table.loc[(table["task_id"] == task_id) & (table["role"] == "support"), "effect"].to_numpy()


def test_inner_influence_and_its_effect(problem: Problem, truth: list[Dense], table: pd.DataFrame) -> None:
    expected = -torch.linalg.solve(truth[1].inner_hessian, truth[1].rows.T).T
    # The inner loss is a mean over S rows: a row's own share of it is 1 / S.
    close(inner_influence(problem, 1), expected / len(expected))
    close(effects(table, problem.tasks.task_ids[1]), truth[1].effect / len(expected))


def test_a_step_in_lambda_or_in_a_weight_changes_the_loss_as_derived(problem: Problem) -> None:
    """Finite differences of the whole, inner problem solved anew each time."""
    task = one_task(problem, 0)
    for step, direction in ((1e-5, grad(problem.model.task_loss)(problem.params, task)),):
        shifted = [
            problem.model.task_loss({k: v + sign * step * direction[k] for k, v in problem.params.items()}, task)
            for sign in (1, -1)
        ]
        slope = float(sum((value**2).sum() for value in direction.values()))
        assert float(shifted[0] - shifted[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


def test_ekfac_is_the_papers_formula(truth_of_ekfac: tuple[Problem, list[Tensor]]) -> None:
    """With an approximate M: d theta / d lambda = proximity M, and inner-IF = -M grad l, as the paper writes them."""
    problem, inverses = truth_of_ekfac
    gradients = task_gradients(problem.model, problem.params, problem.episodes)
    table = instance_table(problem.model, problem.params, u_of(problem), problem.episodes)
    for position, task_id in enumerate(problem.tasks.task_ids):
        exact = dense(problem, task_id)
        outer = _outer(problem, task_id, exact.theta)
        close(gradients[position], problem.model.adaptation.proximity * inverses[position] @ outer)
        close(inner_influence(problem, position), -exact.rows @ inverses[position] / len(exact.rows))
        close(effects(table, task_id), exact.rows @ inverses[position] @ outer / len(exact.rows))


def _outer(problem: Problem, task_id: str, theta: Tensor) -> Tensor:
    _, _, _, xq, yq, q = task_tensors(problem, task_id)
    at = theta.clone().requires_grad_()
    loss = (q * F.cross_entropy(forward(problem, at, xq), yq, reduction="none")).sum() / len(q)
    return torch.autograd.grad(loss, at)[0]


@pytest.fixture(scope="module")
def truth_of_ekfac() -> tuple[Problem, list[Tensor]]:
    from core.maml.ekfac import inverse
    from core.maml.vectors import unflatten

    problem = implicit_problem("mlp", "ekfac")
    matrices = []
    for task_id in problem.tasks.task_ids:
        xs, _, s, *_ = task_tensors(problem, task_id)
        theta = unflatten(dense(problem, task_id).theta, problem.params)
        apply = inverse(problem.model.network, theta, xs, s, problem.model.adaptation.proximity)
        identity = torch.eye(len(flat_params(problem)), dtype=torch.float64)
        matrices.append(torch.stack([flatten(apply(unflatten(e, problem.params))) for e in identity]))
    return problem, matrices


def test_a_nearly_singular_inner_hessian_is_refused() -> None:
    problem = implicit_problem("mlp")
    loose = replace(problem.model, adaptation=Implicit(1e-7, 1e-12))
    with pytest.raises(UserError, match=r"inner (problem|Hessian)"):
        task_gradients(loose, {k: 3 * v for k, v in problem.params.items()}, problem.episodes)


def test_the_inner_report_has_the_residual_and_the_conditioning() -> None:
    problem = implicit_problem("mlp")
    dense_values = [torch.linalg.eigvalsh(dense(problem, t).inner_hessian) for t in problem.tasks.task_ids]
    report = inner_report(problem.model, problem.params, problem.episodes)
    assert report is not None
    assert report.residual <= 1e-9
    assert report.tasks == 3
    assert report.smallest == pytest.approx(min(float(v[0]) for v in dense_values), rel=1e-6)
    assert report.largest == pytest.approx(max(float(v[-1]) for v in dense_values), rel=1e-6)
    assert not report.nearly_singular
    assert InnerReport(0, 0.05, 1, proximity=1, tasks=1).nearly_singular
    unrolled = tiny_problem(count=1)
    assert inner_report(unrolled.model, unrolled.params, unrolled.episodes) is None
