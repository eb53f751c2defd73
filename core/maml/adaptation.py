"""Adapt to tasks by unrolled gradient steps from the meta-parameters, or by solving a proximal inner problem."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch.func import grad

from core.maml import ekfac
from core.maml.backbone import Network, Params, head_of
from core.maml.objective import Task, inner_loss
from core.maml.proximal import Proximal, inverse_product, proximal_optimum

RATE_PREFIX = "rates."


def network_part(params: Params) -> Params:
    """Return the meta-parameters that the network takes, without the learned inner rates."""
    return {name: value for name, value in params.items() if not name.startswith(RATE_PREFIX)}


@dataclass(frozen=True)
class Unrolled:
    """An adaptation by gradient steps on the inner loss (MAML, Finn et al. 2017, equation 1).

    Attributes:
        rate: Inner learning rate, or the initial value of learned rates.
        adapted: ``all`` parameters, or only those of the ``head`` (ANIL, Raghu et al. 2020).
        learned_rates: Whether every parameter has its own rate, which is the meta-parameter ``rates.<name>``
            (Meta-SGD, Li et al. 2017).
    """

    steps: int
    rate: float
    adapted: str = "all"
    learned_rates: bool = False

    def rates(self, network_params: Params, network: Network | None = None) -> Params:
        """Return the initial learned rates, empty if rates are not learned; ``network`` defines the head layer."""
        adapted = self._adapted_params(network_params, network) if self.learned_rates else {}
        return {f"{RATE_PREFIX}{name}": torch.full_like(value, self.rate) for name, value in adapted.items()}

    def _adapted_params(self, theta: Params, network: Network | None) -> Params:
        if self.adapted == "all":
            return theta
        head = f"{head_of(network)}."
        return {name: value for name, value in theta.items() if name.startswith(head)}

    def __call__(self, network: Network, params: Params, task: Task) -> Params:
        """Return the network parameters after the inner steps on the support set of ``task``."""
        theta = network_part(params)
        for _ in range(self.steps):
            adapted = self._adapted_params(theta, network)
            gradient = grad(lambda values, theta=theta: inner_loss(network, {**theta, **values}, task))(adapted)
            rate = {n: params[f"{RATE_PREFIX}{n}"] if self.learned_rates else self.rate for n in adapted}
            theta = {**theta, **{n: value - rate[n] * gradient[n] for n, value in adapted.items()}}
        return theta


@dataclass(frozen=True)
class Implicit:
    """An adaptation that solves the proximal inner problem (section 3 of the paper; iMAML, Rajeswaran et al. 2019).

    The problem is::

        theta_k(lambda) = argmin over theta of L_I(theta) + proximity / 2 |theta - lambda|^2

    Let ``g(theta, lambda, s)`` be the gradient of this objective with respect to theta, and ``M = (H_in)^-1`` with
    ``H_in = d g / d theta``, constant at the optimum theta*. Two steps ``theta <- theta - M g(theta, lambda, s)``
    from the constant theta* do not change the value, but have the exact first and second derivatives of theta_k with
    respect to lambda and s, because each quasi-Newton step raises the order of the error by one. Each product with M
    is one inner solve.

    Attributes:
        tolerance: Tolerance of the inner problem (the norm of g relative to the norms of the terms that add up to
            it) and of the products with M (relative residual).
        inverse: ``cg`` solves with the exact inner Hessian. ``ekfac`` is the approximation of the paper
            (:mod:`core.maml.ekfac`): only one step with respect to lambda is taken, ``d theta / d lambda`` is
            ``proximity M``, and the inner influence of a support row z is ``-M grad l(z)``, as in the paper.
    """

    proximity: float
    tolerance: float = 1e-6
    inverse: str = "cg"

    def __call__(self, network: Network, params: Params, task: Task) -> Params:
        """Return the optimum of the inner problem and its derivatives; UserError if ``ekfac`` cannot be used."""
        if self.inverse == "ekfac":
            ekfac.require_layered(network)  # fail before the expensive inner solve
        problem = Proximal(network, self.proximity, self.tolerance)
        constant_params = {name: value.detach() for name, value in params.items()}
        constant_task = task._replace(s=task.s.detach())
        optimum = proximal_optimum(problem, constant_params, constant_task)
        inverse = (
            partial(inverse_product, problem, theta=optimum, task=constant_task)
            if self.inverse == "cg"
            else ekfac.inverse(network, optimum, task.xs, constant_task.s, self.proximity)
        )

        def gradient(theta: Params, task: Task) -> Params:
            return problem.gradient(theta, params, task)

        def step(theta: Params, change: Params) -> Params:
            return _subtract(theta, inverse(change))

        residual = {name: value.detach() for name, value in gradient(optimum, constant_task).items()}
        if self.inverse == "cg":
            theta = optimum
            for _ in range(2):
                theta = step(theta, _subtract(gradient(theta, task), residual))
            return theta
        theta = step(optimum, _subtract(gradient(optimum, constant_task), residual))
        return step(theta, _subtract(gradient(theta, task), gradient(theta, constant_task)))


def _subtract(a: Params, b: Params) -> Params:
    return {name: a[name] - b[name] for name in a}
