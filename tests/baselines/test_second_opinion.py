"""Independent implementations agree with our operators: curvlinops (Dangel et al. 2025) with curvature products,
TorchOpt (Ren et al. 2023) the gradients through an inner problem that is solved and through inner steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.baselines.libraries import require
from core.influence.curvature import Curvature, task_gradients
from core.maml.adaptation import Implicit, Unrolled
from core.maml.backbone import MLP
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel, Task
from core.maml.vectors import flatten
from tests.problems import Problem, tiny_images, tiny_problem, tiny_tasks, with_weights

OPERATORS = {"exact": "HessianLinearOperator", "gauss-newton": "GGNLinearOperator"}


class Adapting(nn.Module):
    """The model as a module: its parameters are the meta-parameters, its forward adapts to a task first."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        for position, value in enumerate(problem.params.values()):  # dots are not allowed in their names
            self.register_parameter(f"p{position}", nn.Parameter(value.clone()))

    def forward(self, task: dict[str, Tensor]) -> Tensor:
        params = dict(zip(self.problem.params, (p for _, p in self.named_parameters()), strict=True))
        return self.problem.model.query_logits(params, Task(**task))


def curvlinops_product(problem: Problem, name: str) -> Callable[[Tensor], Tensor]:
    """Return ``v -> C v`` with one mini-batch per task, whose rows are its query rows."""
    model = Adapting(problem)
    data = []
    for chunk in problem.episodes.chunks():
        for position in range(len(chunk.positions)):
            task = Task(*(value[position] for value in chunk.task))
            data.append((task._asdict(), task.yq))
    queries = len(data[0][1])
    operator = getattr(require("curvlinops"), OPERATORS[name])(
        model,
        nn.CrossEntropyLoss(reduction="sum"),
        list(model.parameters()),
        data,
        batch_size_fn=lambda task: len(task["yq"]),
    )
    return lambda v: (operator @ v) / queries  # our loss of a task is the mean over its query rows


@pytest.mark.parametrize("name", ["gauss-newton", pytest.param("exact", marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_curvature_products_agree_with_curvlinops(name: str, steps: int) -> None:
    problem = tiny_problem(steps=steps)
    ours = Curvature(name, problem.model, problem.params, problem.episodes)
    theirs = curvlinops_product(problem, name)
    size = sum(value.numel() for value in problem.params.values())
    for v in torch.randn(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)):
        expected = theirs(v)
        assert torch.linalg.norm(ours(v) - expected) <= 1e-8 * torch.linalg.norm(expected)


def mlp_problem(hidden: tuple[int, ...], adaptation: Unrolled | Implicit) -> Problem:
    """Return three tasks of uneven weights on a linear model or a network with tanh."""
    images = tiny_images()
    tasks = tiny_tasks(images, ways=3, shots=2, queries=2, count=3)
    network = MLP(3, hidden=hidden, shape=(7, 7, 1), activation="tanh")
    params = {name: 2 * value for name, value in network.init(3, torch.float64).items()}
    weights = np.random.default_rng(1).uniform(0.3, 1.7, len(tasks.rows))
    episodes = with_weights(Episodes(tasks, images, dtype=torch.float64, chunk=2), weights)
    return Problem(images, episodes.tasks, Bilevel(network, adaptation, delta=0.2), params, episodes)


def single_tasks(problem: Problem) -> list[Task]:
    tasks = []
    for chunk in problem.episodes.chunks():
        tasks += [Task(*(value[row] for value in chunk.task)) for row in range(len(chunk.positions))]
    return tasks


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def linear(flat: Tensor, x: Tensor) -> Tensor:
    """Return logits of three classes from one vector: the weight's rows, then the bias."""
    return x.flatten(1) @ flat[:-3].view(3, -1).T + flat[-3:]


def torchopt_implicit(flat: Tensor, task: Task, proximity: float, solver: str) -> Tensor:
    """Return the gradient of the query loss by lambda: Newton's method to the proximal optimum, then TorchOpt."""
    torchopt = require("torchopt")
    # A vector of size P needs P iterations and, in the normal equations, some more for rounding.
    solve = getattr(torchopt.linear_solve, solver)(rtol=1e-14, atol=1e-14, maxiter=1000)

    def inner(theta: Tensor, lam: Tensor) -> Tensor:
        pull = proximity / 2 * ((theta - lam) ** 2).sum()
        return weighted_loss(linear(theta, task.xs), task.ys, task.s) + pull

    def optimality(theta: Tensor, lam: Tensor) -> Tensor:
        return torch.func.grad(inner)(theta, lam)

    @torchopt.diff.implicit.custom_root(optimality, argnums=1, solve=solve)
    def optimum(start: Tensor, lam: Tensor) -> Tensor:
        theta, at = start.detach(), lam.detach()
        for _ in range(30):
            hessian = torch.func.hessian(inner)(theta, at)
            theta = theta - torch.linalg.solve(hessian, optimality(theta, at))
        assert optimality(theta, at).norm() < 1e-12
        return theta

    lam = flat.clone().requires_grad_()
    theta = optimum(flat.clone(), lam)
    return torch.autograd.grad(weighted_loss(linear(theta, task.xq), task.yq, task.q), lam)[0]


@pytest.mark.parametrize(
    "solver", ["solve_inv", *(pytest.param(name, marks=pytest.mark.slow) for name in ("solve_cg", "solve_normal_cg"))]
)
def test_implicit_gradients_agree_with_torchopt(solver: str) -> None:
    problem = mlp_problem((), Implicit(0.5, 1e-11))
    assert list(problem.params) == ["head.weight", "head.bias"]
    ours = task_gradients(problem.model, problem.params, problem.episodes)
    for have, task in zip(ours, single_tasks(problem), strict=True):
        expected = torchopt_implicit(flatten(problem.params), task, 0.5, solver)
        assert torch.linalg.norm(have - expected) <= 1e-6 * torch.linalg.norm(expected)


def torchopt_unrolled(problem: Problem, task: Task, steps: int, **settings: Any) -> Tensor:
    """Return the gradient of the query loss through TorchOpt's differentiable steps, by the initial parameters."""
    hidden = problem.model.network.hidden
    sizes = (49, *hidden, 3)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after, dtype=torch.float64), nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    nn.utils.vector_to_parameters(flatten(problem.params), net.parameters())
    start = list(net.parameters())
    optimiser = require("torchopt").MetaSGD(net, **settings)
    for _ in range(steps):
        optimiser.step(weighted_loss(net(task.xs), task.ys, task.s))
    outer = weighted_loss(net(task.xq), task.yq, task.q)
    return torch.cat([g.flatten() for g in torch.autograd.grad(outer, start)])


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("hidden", [(), (4,)], ids=["linear", "tanh"])
def test_gradients_through_inner_steps_agree_with_torchopt(hidden: tuple[int, ...], steps: int) -> None:
    problem = mlp_problem(hidden, Unrolled(steps, 0.3))
    ours = task_gradients(problem.model, problem.params, problem.episodes)
    for have, task in zip(ours, single_tasks(problem), strict=True):
        expected = torchopt_unrolled(problem, task, steps, lr=0.3)
        assert torch.linalg.norm(have - expected) <= 1e-8 * torch.linalg.norm(expected)
