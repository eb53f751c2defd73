"""Every pass over a chunk of tasks for convolutional networks that adapt by gradient steps, on :class:`Trace`.

A step is ``theta_{j+1} = theta_j - rate * G_j(theta_j)``, G the gradient of the inner loss. Going forward, each step
is a trace of the support set with its gradient, and, where a direction ``v`` is asked for, that trace's component a.
Going back from the query set with its gradient ``q`` (and the derivative r of q along v), each step needs the product
of its Hessian with q: component b of the same trace, and component ab for the derivative of that along v. Nothing of
the support set is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.maml.adaptation import RATES, Unrolled, network_part
from core.maml.backbone import Params, head_of
from core.maml.objective import Bilevel, Task
from core.maml.passes.generic import RowScores, logit_curvature
from core.maml.passes.plan import Plan, plan_of
from core.maml.passes.trace import AB, VALUE, A, B, Hyper, Trace


def _times(left: Params, right: Params) -> Params:
    """Elementwise, of the names that both have."""
    return {name: value * right[name] for name, value in left.items() if name in right}


def _plus(left: Params, right: Params) -> Params:
    """Elementwise; a name that is missing is 0."""
    both = {name: value + right[name] if name in right else value for name, value in left.items()}
    return both | {name: value for name, value in right.items() if name not in left}


def _minus(left: Params, right: Params) -> Params:
    both = {name: value - right[name] if name in right else value for name, value in left.items()}
    return both | {name: -value for name, value in right.items() if name not in left}


@dataclass
class _Adapted:
    """The adaptation of a chunk.

    Attributes:
        steps: A trace of the support sets a step.
        theta: Components of the adapted parameters: the value, and a where there is a direction.
    """

    steps: list[Trace]
    theta: dict[int, Params]


class UnrolledPasses:
    """See :class:`core.maml.passes.Passes`."""

    def __init__(self, plan: Plan, adaptation: Unrolled, head: str | None, first_order: bool) -> None:
        self._plan, self._adaptation, self._head, self._first_order = plan, adaptation, head, first_order

    @classmethod
    def of(cls, model: Bilevel) -> UnrolledPasses | None:
        """The passes of a model; None where it is not of this kind."""
        plan, adaptation = plan_of(model.network), model.adaptation
        if plan is None or not isinstance(adaptation, Unrolled):
            return None
        head = f"{head_of(model.network)}." if adaptation.adapted == "head" else None
        return cls(plan, adaptation, head, model.first_order)

    def query_logits(self, params: Params, chunk: Task) -> Tensor:
        query = self._query(chunk)
        query.forward(VALUE, self._adapt(params, chunk).theta[VALUE])
        return query.logits[VALUE]

    def gradients(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        gradient, query = self._gradient(params, chunk)
        loss = query.loss(VALUE)
        assert loss is not None
        return gradient[VALUE], loss

    def gradient(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        gradients, losses = self.gradients(params, chunk)
        return _summed(gradients), losses

    def hessian(self, params: Params, v: Params, chunk: Task) -> Params:
        return _summed(self._gradient(params, chunk, v)[0][A])

    def weight_change_gradients(self, params: Params, chunk: Task, change: Task) -> Params:
        return self._gradient(params, chunk, change=change)[0][A]

    def gauss_newton(self, params: Params, v: Params, chunk: Task) -> Params:
        adapted = self._adapt(params, chunk, v)
        query = self._query(chunk)
        query.forward(VALUE, adapted.theta[VALUE])
        query.forward(A, adapted.theta[A])
        curved = logit_curvature(query.logits[VALUE], query.logits[A], chunk.q)
        gradient = {VALUE: query.backward(VALUE, curved)}
        return _summed(self._ordered(self._back(adapted, gradient, params)[VALUE], params, chunk))

    def fisher(self, params: Params, v: Params, chunk: Task) -> Params:
        gradients, _ = self.gradients(params, chunk)
        along = torch.stack([torch.einsum("t...,...->t", g, v[name]) for name, g in gradients.items()]).sum(0)
        return {name: torch.tensordot(along, g, 1) for name, g in gradients.items()}

    def row_scores(self, params: Params, u: Params, chunk: Task) -> RowScores:
        adapted = self._adapt(params, chunk, u)
        query = self._query(chunk)
        for component in (VALUE, A):
            query.forward(component, adapted.theta[component])
            query.backward(component)
        by_s, effect = torch.zeros_like(chunk.s), torch.zeros_like(chunk.s)
        rows = chunk.s.shape[-1]
        for step in self._steps_back(adapted, query.gradient, params, u, to_start=False):
            # The derivative of a step by s_z is minus the rated gradient of row z, over the number of rows.
            effect.add_(step.rows[B] / rows)
            by_s.sub_(step.rows[AB] / rows)
        support = Trace(self._plan, chunk.xs, chunk.ys, {})
        support.forward(VALUE, adapted.theta[VALUE])
        by_q = query.rows[A] / chunk.q.shape[-1]
        return RowScores(by_s, by_q, effect, support.logits[VALUE], query.logits[VALUE])

    def _gradient(
        self, params: Params, chunk: Task, v: Params | None = None, change: Task | None = None
    ) -> tuple[dict[int, Params], Trace]:
        """Gradients by the meta-parameters, ``(T, ...)`` each; as component a their derivatives along ``v`` or along
        a change of the weights."""
        adapted = self._adapt(params, chunk, v, change)
        query = self._query(chunk, change)
        for component, theta in adapted.theta.items():
            query.forward(component, theta)
            query.backward(component)
        found = self._back(adapted, query.gradient, params, v)
        return {component: self._ordered(part, params, chunk) for component, part in found.items()}, query

    def _query(self, chunk: Task, change: Task | None = None) -> Trace:
        return Trace(self._plan, chunk.xq, chunk.yq, _mean_weights(chunk.q, None if change is None else change.q))

    def _adapt(self, params: Params, chunk: Task, v: Params | None = None, change: Task | None = None) -> _Adapted:
        tasks = len(chunk.ys)
        weights = _mean_weights(chunk.s, None if change is None else change.s)
        theta = _each(network_part(params), tasks)
        direction: Params | None = None if change is None else {}
        if v is not None and not self._first_order:
            direction = _each(network_part(v), tasks)
        steps = []
        for _ in range(self._adaptation.steps):
            step = Trace(self._plan, chunk.xs, chunk.ys, weights)
            step.forward(VALUE, theta)
            gradient = self._moving(step.backward(VALUE))
            theta = _minus(theta, self._rated(gradient, params))
            if direction is not None:
                step.forward(A, direction)
                moved = self._rated(self._moving(step.backward(A)), params)
                if v is not None:
                    moved = _plus(moved, _times(gradient, self._rates(v)))
                direction = _minus(direction, moved)
            steps.append(step)
        if v is not None and self._first_order:  # the steps are constants to it
            direction = _each(network_part(v), tasks)
        return _Adapted(steps, {VALUE: theta} | ({} if direction is None else {A: direction}))

    def _back(
        self, adapted: _Adapted, gradient: dict[int, Params], params: Params, v: Params | None = None
    ) -> dict[int, Params]:
        """From the gradient by the adapted parameters to that by the meta-parameters, component by component."""
        if self._first_order:
            return gradient
        found = dict(gradient)
        for _ in self._steps_back(adapted, found, params, v, to_start=True):
            pass
        return found

    def _steps_back(
        self, adapted: _Adapted, gradient: dict[int, Params], params: Params, v: Params | None, *, to_start: bool
    ) -> Iterator[Trace]:
        """Go back through the steps, last to first, and leave the gradient by what was before them in ``gradient``.

        Yields each step once its rows have their components b and ab, before its gradient is made; without
        ``to_start`` that of the first step, which only the gradient at the start needs, is not made.
        """
        rates = {} if v is None or self._first_order else self._rates(v)
        for step in reversed(adapted.steps):
            q, r = self._moving(gradient[VALUE]), self._moving(gradient.get(A, {}))
            step.forward(B, self._rated(q, params))
            if A in gradient:
                step.forward(AB, _plus(self._rated(r, params), _times(q, rates)))
            yield step
            if step is adapted.steps[0] and not to_start:
                return
            gradient[VALUE] = _minus(gradient[VALUE], step.backward(B))
            if A in gradient:
                gradient[A] = _minus(gradient[A], step.backward(AB))
            if self._adaptation.learned_rates:
                by_rate = {VALUE: _times(q, step.gradient[VALUE])}
                if A in gradient:
                    by_rate[A] = _plus(_times(r, step.gradient[VALUE]), _times(q, step.gradient.get(A, {})))
                for component, part in by_rate.items():
                    named = {f"{RATES}{name}": value for name, value in part.items()}
                    gradient[component] = _minus(gradient[component], named)

    def _moving(self, params: Params) -> Params:
        """Those of the parameters that the adaptation moves."""
        return {n: value for n, value in params.items() if self._head is None or n.startswith(self._head)}

    def _rated(self, gradient: Params, params: Params) -> Params:
        """Times the inner learning rate."""
        if self._adaptation.learned_rates:
            return _times(gradient, self._rates(params))
        return {name: value * self._adaptation.rate for name, value in gradient.items()}

    @staticmethod
    def _rates(params: Params) -> Params:
        """The learned rates by the names of their parameters."""
        return {name.removeprefix(RATES): value for name, value in params.items() if name.startswith(RATES)}

    @staticmethod
    def _ordered(found: Params, params: Params, chunk: Task) -> Params:
        """In the order of the meta-parameters, each ``(T, ...)``; those missing are 0."""
        tasks = len(chunk.ys)
        return {n: found[n] if n in found else p.new_zeros(tasks, *p.shape) for n, p in params.items()}


def _mean_weights(weights: Tensor, change: Tensor | None) -> Hyper:
    rows = weights.shape[-1]
    return {VALUE: weights / rows} | ({} if change is None else {A: change / rows})


def _each(params: Params, tasks: int) -> Params:
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def _summed(params: Params) -> Params:
    return {name: value.sum(0) for name, value in params.items()}
