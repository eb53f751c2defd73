"""Diagnostics of the proximal inner problem: the accuracy of its solution and the conditioning of its Hessian."""

from __future__ import annotations

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

_TASKS, _LANCZOS_STEPS = 8, 30
_NEARLY_SINGULAR = 0.1  # smallest eigenvalue of the inner Hessian, as a share of the proximal term's


@dataclass(frozen=True)
class InnerReport:
    """The worst diagnostics over some tasks.

    ``residual`` is the norm of the inner gradient at theta_k, relative to the sum of the norms of its two terms.
    ``smallest`` and ``largest`` are Ritz values of the inner Hessian, including the proximal term.
    """

    residual: float
    smallest: float
    largest: float
    proximity: float
    tasks: int

    @property
    def nearly_singular(self) -> bool:
        """Return whether negative curvature of the inner loss nearly cancels the proximal term."""
        return self.smallest < _NEARLY_SINGULAR * self.proximity


def inner_report(model: Bilevel, params: Params, episodes: Episodes) -> InnerReport | None:
    """Check at most 8 tasks spread over the list; return None if adaptation is not implicit.

    Raises:
        UserError: the inner problem of a task cannot be solved, or its Hessian is not positive definite.
    """
    adaptation = model.adaptation
    if not isinstance(adaptation, Implicit):
        return None
    problem = Proximal(model.network, adaptation.proximity, adaptation.tolerance)
    positions = np.unique(np.linspace(0, len(episodes) - 1, min(_TASKS, len(episodes))).astype(int))
    residual, smallest, largest = 0.0, np.inf, -np.inf
    for chunk in episodes.chunks(positions):
        for row in range(len(chunk.positions)):
            task = Task(*(value[row] for value in chunk.task))
            theta = model.adapt(params, task)
            gradient = flatten(problem.gradient(theta, params, task))
            proximal = adaptation.proximity * (flatten(theta) - flatten(params))
            scale = (gradient - proximal).norm() + proximal.norm()
            residual = max(residual, float(gradient.norm() / scale.clamp_min(torch.finfo(scale.dtype).tiny)))

            def product(v: torch.Tensor, theta: Params = theta, task: Task = task) -> torch.Tensor:
                return flatten(problem.hessian_product(unflatten(v, theta), theta, task))

            values = lanczos(product, flatten(theta), _LANCZOS_STEPS).values
            smallest, largest = min(smallest, float(values[0])), max(largest, float(values[-1]))
    return InnerReport(residual, smallest, largest, adaptation.proximity, len(positions))
