"""Every operator, gradient and score of the engine against dense float64 matrices from plain autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import grad

from core.editing.linear import change_gradient
from core.influence.curvature import CURVATURES, Curvature
from core.influence.scores import image_table, instance_table, task_table
from core.influence.solvers import conjugate_gradients
from core.influence.targets import Target, target_gradient
from core.maml.episodes import Episodes, sum_over_tasks, vmap_tasks
from core.maml.training import stationarity
from core.maml.vectors import flatten
from core.tasks.tasklist import TaskList
from tests.influence import reference
from tests.problems import Problem, tiny_problem, with_weights

SHAPES: list[dict[str, Any]] = [
    {"ways": 3, "shots": 2, "queries": 2, "count": 4, "steps": 1},
    {"ways": 2, "shots": 1, "queries": 3, "count": 2, "steps": 3},
    {"ways": 4, "shots": 2, "queries": 1, "count": 1, "steps": 2, "pooling": "max", "activation": "relu"},
    {"ways": 2, "shots": 2, "queries": 2, "count": 2, "pooling": "mean"},
    {"ways": 3, "shots": 1, "queries": 2, "count": 2, "steps": 2, "algorithm": "fomaml"},
    {"ways": 3, "shots": 2, "queries": 1, "count": 2, "steps": 2, "algorithm": "anil"},
    {"ways": 2, "shots": 2, "queries": 2, "count": 2, "steps": 2, "algorithm": "meta-sgd"},
]


def close(actual: torch.Tensor | np.ndarray, expected: torch.Tensor | np.ndarray) -> None:
    """Relative error at most 1e-8 in the norm."""
    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= 1e-8 * expected.norm()


@pytest.fixture(params=SHAPES, ids=lambda shape: "-".join(str(v) for v in shape.values()), scope="module")
def problem(request: pytest.FixtureRequest) -> Problem:
    return tiny_problem(**request.param)


@pytest.fixture(scope="module")
def weighted(problem: Problem) -> Problem:
    """The same with uneven weights, two of them 0."""
    weights = np.random.default_rng(1).uniform(0.2, 1.8, len(problem.tasks.rows))
    weights[[0, -1]] = 0
    episodes = with_weights(problem.episodes, weights)
    return Problem(problem.images, episodes.tasks, problem.model, problem.params, episodes)


@pytest.fixture(scope="module")
def gradients(weighted: Problem) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Per task: those of its support rows, ``(S, P)``, of its query rows, ``(Q, P)``, and its own, ``(P,)``."""
    return [
        (
            reference.support_row_gradients(weighted, task_id),
            reference.query_row_gradients(weighted, task_id),
            reference.gradient(weighted, task_id),
        )
        for task_id in weighted.tasks.task_ids
    ]


def test_total_gradients_of_every_task(weighted: Problem) -> None:
    function = vmap_tasks(grad(weighted.model.task_loss))
    for chunk in weighted.episodes.chunks():
        rows = torch.cat([g.flatten(1) for g in function(weighted.params, chunk.task).values()], 1)
        for position, row in zip(chunk.positions, rows, strict=True):
            close(row, reference.gradient(weighted, weighted.tasks.task_ids[position]))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.get("algorithm") != "fomaml"])
def test_total_gradient_against_finite_differences(shape: dict[str, Any]) -> None:
    """Of all but first-order MAML, whose update is no gradient of its loss."""
    problem = tiny_problem(**shape)
    task_id = problem.tasks.task_ids[0]
    flat, step = reference.flat_params(problem), 1e-6
    direction = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0), dtype=flat.dtype)
    up, down = (
        float(reference.task_loss(problem, (flat + h * direction).requires_grad_(), task_id)) for h in (step, -step)
    )
    (chunk,) = problem.episodes.chunks(np.array([0]))
    ours = flatten(grad(sum_over_tasks(problem.model.task_loss))(problem.params, chunk.task)) @ direction
    assert float(ours) == pytest.approx((up - down) / (2 * step), rel=1e-6)


DENSE = {
    "exact": reference.dense_hessian,
    "gauss-newton": reference.dense_gauss_newton,
    "direct": reference.dense_direct,
    "task-fisher": reference.dense_task_fisher,
    "gamma": reference.dense_gamma,
}


@pytest.mark.parametrize("name", CURVATURES)
def test_curvature_products(weighted: Problem, name: str) -> None:
    dense = DENSE[name](weighted, weighted.tasks.task_ids)
    operator = Curvature(name, weighted.model, weighted.params, weighted.episodes)
    v = torch.randn(2, len(dense), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    close(torch.stack([operator(one) for one in v]), v @ dense)


def test_curvature_on_a_subsample_is_scaled_to_all_tasks() -> None:
    problem = tiny_problem(count=4)
    dense = reference.dense_gauss_newton(problem, [problem.tasks.task_ids[i] for i in (0, 2)]) * 2
    operator = Curvature("gauss-newton", problem.model, problem.params, problem.episodes, np.array([0, 2]))
    v = torch.linspace(-1, 1, len(dense), dtype=torch.float64)
    close(operator(v), dense @ v)


def test_target_gradients(problem: Problem) -> None:
    ids = problem.tasks.task_ids
    query = problem.tasks.rows[(problem.tasks.rows["task_id"] == ids[0]) & (problem.tasks.rows["role"] == "query")]
    last = query["image_id"].iloc[-1]
    flat = reference.leaf(problem)
    losses = {
        "all": torch.stack([reference.task_loss(problem, flat, t) for t in ids]).mean(),
        ids[-1]: reference.task_loss(problem, flat, ids[-1]),
        f"{ids[0]}/{last}": reference.query_losses(problem, flat, ids[0])[-1],
    }
    for text, loss in losses.items():
        tasks = Target.parse(text).weighted(problem.tasks)
        episodes = Episodes(tasks, problem.images, dtype=torch.float64, chunk=2)
        gradient, value = target_gradient(problem.model, problem.params, episodes)
        close(gradient, torch.autograd.grad(loss, flat, retain_graph=True)[0])
        assert value == pytest.approx(float(loss), rel=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "gauss-newton" else pytest.mark.slow) for name in CURVATURES]
)
def test_scores_of_tasks_instances_and_images(
    weighted: Problem, gradients: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], name: str
) -> None:
    dense = DENSE[name](weighted, weighted.tasks.task_ids)
    shift = max(0.0, -float(torch.linalg.eigvalsh(dense)[0])) + 0.5
    v = reference.gradient(weighted, weighted.tasks.task_ids[0])
    exact_u = torch.linalg.solve(dense + shift * torch.eye(len(dense), dtype=torch.float64), v)
    operator = Curvature(name, weighted.model, weighted.params, weighted.episodes)
    solution = conjugate_gradients(operator, v, shift=shift, tolerance=1e-13, iterations=500)
    close(solution.x, exact_u)
    assert solution.residual <= 1e-11
    instances = instance_table(weighted.model, weighted.params, solution.x, weighted.episodes)
    expected = torch.cat([rows @ exact_u for support, query, _ in gradients for rows in (support, query)])
    close(instances["score"].to_numpy(), expected)
    close(task_table(instances)["score"].to_numpy(), torch.stack([task @ exact_u for *_, task in gradients]))
    images = image_table(instances).set_index("image_id")
    weights = weighted.tasks.rows["weight"].to_numpy()
    is_support = (weighted.tasks.rows["role"] == "support").to_numpy()
    for image_id in images.index:
        of_image = (weighted.tasks.rows["image_id"] == image_id).to_numpy()
        for column, counted in (("score", of_image), ("score_support", of_image & is_support)):
            total_score = float((expected.numpy() * weights)[counted].sum())
            assert images.loc[image_id, column] == pytest.approx(total_score, rel=1e-8, abs=1e-13)


def test_predictions_of_the_adapted_model(problem: Problem) -> None:
    u = torch.ones(len(reference.flat_params(problem)), dtype=torch.float64)
    table = instance_table(problem.model, problem.params, u, problem.episodes)
    for task_id in problem.tasks.task_ids:
        xs, ys, ws, xq, yq, _ = reference.task_tensors(problem, task_id)
        theta = reference.adapted(problem, reference.leaf(problem), task_id, ws)
        for role, x, y in (("support", xs, ys), ("query", xq, yq)):
            rows = table[(table["task_id"] == task_id) & (table["role"] == role)]
            log_probability = torch.log_softmax(reference.forward(problem, theta, x), -1).detach()
            of_label = log_probability[torch.arange(len(y)), y]
            others = log_probability[F.one_hot(y, problem.tasks.ways) == 0].reshape(len(y), -1)
            close(rows["loss"].to_numpy(), -of_label)
            close(rows["margin"].to_numpy(), of_label - others.max(-1).values)
            close(rows["entropy"].to_numpy(), -(log_probability.exp() * log_probability).sum(-1))
            assert rows["predicted"].tolist() == log_probability.argmax(-1).tolist()
            names = dict(zip(rows["label"], rows["class"], strict=True))
            assert rows["predicted_class"].tolist() == [names[i] for i in rows["predicted"]]


def test_removal_matches_the_objective_without_the_rows(problem: Problem) -> None:
    """A whole task removed: the gradient of the objective falls by exactly its removal gradient."""
    weights = problem.tasks.rows["weight"].to_numpy().copy()
    weights[(problem.tasks.rows["task_id"] == problem.tasks.task_ids[0]).to_numpy()] = 0
    before = sum(reference.gradient(problem, t) for t in problem.tasks.task_ids)
    remaining = TaskList(problem.tasks.rows.assign(weight=weights))
    removed = Problem(problem.images, remaining, problem.model, problem.params, problem.episodes)
    after = sum(reference.gradient(removed, t) for t in problem.tasks.task_ids)
    close(change_gradient(problem.model, problem.params, problem.episodes, weights), before - after)


def test_stationarity_reports_the_gradient_of_the_whole_objective(weighted: Problem) -> None:
    flat = reference.flat_params(weighted)
    gradients = torch.stack([reference.gradient(weighted, t) for t in weighted.tasks.task_ids])
    decay = weighted.model.delta * flat
    report = stationarity(weighted.model, weighted.params, weighted.episodes)
    norm = float((gradients.sum(0) + decay).norm())
    losses = sum(float(reference.task_loss(weighted, reference.leaf(weighted), t)) for t in weighted.tasks.task_ids)
    assert report.gradient_norm == pytest.approx(norm, rel=1e-8)
    assert report.ratio == pytest.approx(norm / float(gradients.norm(dim=1).sum() + decay.norm()), rel=1e-8)
    assert report.objective == pytest.approx(losses + weighted.model.delta / 2 * float(flat @ flat), rel=1e-8)
