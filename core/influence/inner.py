"""How well the proximal inner problem is solved, and how far its Hessian is from singular."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from core.influence.solvers import lanczos
from core.maml.adaptation import Implicit
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel, Task
from core.maml.proximal import Proximal
from core.maml.vectors import flatten, unflatten

_STEPS = 30


@dataclass(frozen=True)
class InnerReport:
    """Of some tasks; the worst of each.

    Attributes:
        residual: Norm of the inner gradient at theta_k against that of the two terms it is the sum of.
        smallest, largest: Ritz values of the inner Hessian, proximity included.
        tasks: How many tasks were looked at.
    """

    residual: float
    smallest: float
    largest: float
    proximity: float
    tasks: int

    @property
    def nearly_singular(self) -> bool:
        """The inner loss bends down nearly as much as the proximal term bends up."""
        return self.smallest < 0.1 * self.proximity


def inner_report(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    count: int = 8,
    on_chunk: Callable[[int], None] = lambda tasks: None,
) -> InnerReport | None:
    """Look at ``count`` tasks spread over the list; None where adaptation is not implicit.

    Raises:
        UserError: the inner problem of a task cannot be solved, or its Hessian is not positive definite.
    """
    how = model.adaptation
    if not isinstance(how, Implicit):
        return None
    problem = Proximal(model.network, how.proximity, how.tolerance)
    positions = np.unique(np.linspace(0, len(episodes) - 1, min(count, len(episodes))).astype(int))
    residual, smallest, largest = 0.0, np.inf, -np.inf
    for chunk in episodes.chunks(positions):
        for row in range(len(chunk.positions)):
            task = Task(*(value[row] for value in chunk.task))
            theta = model.adapt(params, task)
            slope = flatten(problem.gradient(theta, params, task))
            pull = how.proximity * (flatten(theta) - flatten(params))
            scale = (slope - pull).norm() + pull.norm()
            residual = max(residual, float(slope.norm() / scale.clamp_min(torch.finfo(scale.dtype).tiny)))

            def product(v: torch.Tensor, theta: Params = theta, task: Task = task) -> torch.Tensor:
                return flatten(problem.hessian_product(unflatten(v, theta), theta, task))

            values = lanczos(product, flatten(theta), _STEPS).values
            smallest, largest = min(smallest, float(values[0])), max(largest, float(values[-1]))
        on_chunk(len(chunk.positions))
    return InnerReport(residual, smallest, largest, how.proximity, len(positions))
