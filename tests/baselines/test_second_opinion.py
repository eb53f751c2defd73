"""Curvature products by curvlinops (Dangel et al. 2025), which knows nothing of our operators or of dattri."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from core.baselines.libraries import require
from core.influence.curvature import Curvature
from core.maml.objective import Task
from tests.problems import Problem, tiny_problem

pytestmark = pytest.mark.skipif(find_spec("curvlinops") is None, reason="requirements-baselines.txt is not installed")

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
    """``v -> C v`` with one mini-batch a task, whose rows are its query rows."""
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


@pytest.mark.parametrize("name", sorted(OPERATORS))
@pytest.mark.parametrize("steps", [1, 3])
def test_curvature_products_agree_with_curvlinops(name: str, steps: int) -> None:
    problem = tiny_problem(steps=steps)
    ours = Curvature(name, problem.model, problem.params, problem.episodes)
    theirs = curvlinops_product(problem, name)
    size = sum(value.numel() for value in problem.params.values())
    for v in torch.randn(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)):
        want = theirs(v)
        assert torch.linalg.norm(ours(v) - want) <= 1e-8 * torch.linalg.norm(want)
