"""Implement the passes for convolutional networks that adapt by gradient steps, based on :class:`.trace.Trace`.

A step is ``theta_{j+1} = theta_j - rate * G_j(theta_j)``, where G_j is the gradient of the inner loss. In the forward
direction, each step is a trace of the support set with its gradient and, for a direction ``v``, component a of that
trace. The backward direction starts with the gradient ``q`` of the query set (and the derivative r of q along v). Each
step then needs the product of its Hessian with q, which is component b of the same trace, and the derivative of that
product along v, which is component ab. No computation on the support set is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from core.maml.adaptation import RATE_PREFIX, Unrolled, network_part
from core.maml.backbone import Params, head_of
from core.maml.objective import Bilevel, Task
from core.maml.passes.generic import RowScores, logit_curvature
from core.maml.passes.hyperdual import AB, VALUE, A, B, Hyper
from core.maml.passes.plan import ConvPlan, plan_of
from core.maml.passes.trace import Trace


def _multiply(left: Params, right: Params) -> Params:
    """Return the elementwise product for the names that both have."""
    return {name: value * right[name] for name, value in left.items() if name in right}


def _add(left: Params, right: Params) -> Params:
    """Return the elementwise sum; missing names are 0."""
    out = {name: value + right[name] if name in right else value for name, value in left.items()}
    return out | {name: value for name, value in right.items() if name not in left}


def _subtract(left: Params, right: Params) -> Params:
    out = {name: value - right[name] if name in right else value for name, value in left.items()}
    return out | {name: -value for name, value in right.items() if name not in left}


class UnrolledPasses:
    """The passes of :class:`core.maml.passes.generic.GenericPasses`, computed by explicit derivatives."""

    def __init__(self, plan: ConvPlan, adaptation: Unrolled, head: str | None, first_order: bool) -> None:
        self._plan, self._adaptation, self._head, self._first_order = plan, adaptation, head, first_order

    @classmethod
    def of(cls, model: Bilevel) -> UnrolledPasses | None:
        """Return the passes of a model, or None if it is not supported."""
        plan, adaptation = plan_of(model.network), model.adaptation
        if plan is None or not isinstance(adaptation, Unrolled):
            return None
        head = f"{head_of(model.network)}." if adaptation.adapted == "head" else None
        return cls(plan, adaptation, head, model.first_order)

    def query_logits(self, params: Params, chunk: Task) -> Tensor:
        """Return the logits ``(T, Q, ways)`` of the query images after adaptation."""
        query = self._query(chunk)
        query.forward(VALUE, self._adapt(params, chunk)[1][VALUE])
        return query.logits[VALUE]

    def gradients(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        """Return the total gradient of every task ``(T, ...)`` and its query loss ``(T,)``."""
        gradient, query = self._gradient(params, chunk)
        loss = query.loss(VALUE)
        assert loss is not None
        return gradient[VALUE], loss

    def gradient(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        """Return the sum of the total gradients over the tasks, and the query losses ``(T,)``."""
        gradients, losses = self.gradients(params, chunk)
        return _sum_over_tasks(gradients), losses

    def hessian(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return the product of the summed Hessian of the tasks with ``v``."""
        return _sum_over_tasks(self._gradient(params, chunk, v)[0][A])

    def weight_change_gradients(self, params: Params, chunk: Task, change: Task) -> Params:
        """Return the gradient of the derivative of every task loss along a change of its weights, ``(T, ...)``."""
        return self._gradient(params, chunk, change=change)[0][A]

    def gauss_newton(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return the product of the summed Gauss-Newton matrix of the tasks with ``v``."""
        steps, theta = self._adapt(params, chunk, v)
        query = self._query(chunk)
        query.forward(VALUE, theta[VALUE])
        query.forward(A, theta[A])
        by_logits = logit_curvature(query.logits[VALUE], query.logits[A], chunk.q)
        gradient = {VALUE: query.backward(VALUE, by_logits)}
        return _sum_over_tasks(self._in_order(self._backward(steps, gradient, params)[VALUE], params, chunk))

    def fisher(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return the product of the summed outer products of the task gradients with ``v``."""
        gradients, _ = self.gradients(params, chunk)
        along = torch.stack([torch.einsum("t...,...->t", g, v[name]) for name, g in gradients.items()]).sum(0)
        return {name: torch.tensordot(along, g, 1) for name, g in gradients.items()}

    def row_scores(self, params: Params, u: Params, chunk: Task) -> RowScores:
        """Return the scores of every row along u, and the logits after adaptation."""
        steps, theta = self._adapt(params, chunk, u)
        query = self._query(chunk)
        for component in (VALUE, A):
            query.forward(component, theta[component])
            query.backward(component)
        by_s, effect = torch.zeros_like(chunk.s), torch.zeros_like(chunk.s)
        rows = chunk.s.shape[-1]
        for step in self._steps_backward(steps, query.gradient, params, u, to_start=False):
            # The derivative of a step with respect to s_z is -rate times the gradient of row z / the number of rows.
            effect.add_(step.rows[B] / rows)
            by_s.sub_(step.rows[AB] / rows)
        support = Trace(self._plan, chunk.xs, chunk.ys, {})
        support.forward(VALUE, theta[VALUE])
        by_q = query.rows[A] / chunk.q.shape[-1]
        return RowScores(by_s, by_q, effect, support.logits[VALUE], query.logits[VALUE])

    def _gradient(
        self, params: Params, chunk: Task, v: Params | None = None, change: Task | None = None
    ) -> tuple[dict[int, Params], Trace]:
        """Return the gradients with respect to the meta-parameters, ``(T, ...)``, and the trace of the query sets.

        Component a of the gradients is their derivative along ``v`` or along a change of the weights.
        """
        steps, theta = self._adapt(params, chunk, v, change)
        query = self._query(chunk, change)
        for component, part in theta.items():
            query.forward(component, part)
            query.backward(component)
        gradient = self._backward(steps, query.gradient, params, v)
        return {component: self._in_order(part, params, chunk) for component, part in gradient.items()}, query

    def _query(self, chunk: Task, change: Task | None = None) -> Trace:
        return Trace(self._plan, chunk.xq, chunk.yq, _mean_weights(chunk.q, None if change is None else change.q))

    def _adapt(
        self, params: Params, chunk: Task, v: Params | None = None, change: Task | None = None
    ) -> tuple[list[Trace], dict[int, Params]]:
        """Return one trace of the support sets per step, and the components of the adapted parameters.

        These are the value, and component a if there is a direction or a change.
        """
        tasks = len(chunk.ys)
        weights = _mean_weights(chunk.s, None if change is None else change.s)
        theta = _expand_over_tasks(network_part(params), tasks)
        direction: Params | None = None if change is None else {}
        if v is not None and not self._first_order:
            direction = _expand_over_tasks(network_part(v), tasks)
        steps = []
        for _ in range(self._adaptation.steps):
            step = Trace(self._plan, chunk.xs, chunk.ys, weights)
            step.forward(VALUE, theta)
            gradient = self._adapted(step.backward(VALUE))
            theta = _subtract(theta, self._times_rate(gradient, params))
            if direction is not None:
                step.forward(A, direction)
                step_change = self._times_rate(self._adapted(step.backward(A)), params)
                if v is not None:
                    step_change = _add(step_change, _multiply(gradient, self._rates(v)))
                direction = _subtract(direction, step_change)
            steps.append(step)
        if v is not None and self._first_order:  # the steps do not depend on the direction
            direction = _expand_over_tasks(network_part(v), tasks)
        return steps, {VALUE: theta} | ({} if direction is None else {A: direction})

    def _backward(
        self, steps: list[Trace], gradient: dict[int, Params], params: Params, v: Params | None = None
    ) -> dict[int, Params]:
        """Return the components of the gradient with respect to the meta-parameters.

        ``gradient`` contains those of the gradient with respect to the adapted parameters.
        """
        gradient = dict(gradient)
        if not self._first_order:
            for _ in self._steps_backward(steps, gradient, params, v, to_start=True):
                pass
        return gradient

    def _steps_backward(
        self, steps: list[Trace], gradient: dict[int, Params], params: Params, v: Params | None, *, to_start: bool
    ) -> Iterator[Trace]:
        """Yield the steps from last to first, and update ``gradient`` to refer to the parameters before each step.

        Each step is yielded after components b and ab of its rows, but before its gradient, are computed. Without
        ``to_start``, the gradient of the first step is not computed, because only the gradient with respect to the
        initial parameters needs it.
        """
        rates = {} if v is None or self._first_order else self._rates(v)
        for step in reversed(steps):
            q, r = self._adapted(gradient[VALUE]), self._adapted(gradient.get(A, {}))
            step.forward(B, self._times_rate(q, params))
            if A in gradient:
                step.forward(AB, _add(self._times_rate(r, params), _multiply(q, rates)))
            yield step
            if step is steps[0] and not to_start:
                return
            gradient[VALUE] = _subtract(gradient[VALUE], step.backward(B))
            if A in gradient:
                gradient[A] = _subtract(gradient[A], step.backward(AB))
            if self._adaptation.learned_rates:
                by_rate = {VALUE: _multiply(q, step.gradient[VALUE])}
                if A in gradient:
                    by_rate[A] = _add(_multiply(r, step.gradient[VALUE]), _multiply(q, step.gradient.get(A, {})))
                for component, part in by_rate.items():
                    prefixed = {f"{RATE_PREFIX}{name}": value for name, value in part.items()}
                    gradient[component] = _subtract(gradient[component], prefixed)

    def _adapted(self, params: Params) -> Params:
        """Return the parameters that the adaptation changes."""
        return {n: value for n, value in params.items() if self._head is None or n.startswith(self._head)}

    def _times_rate(self, gradient: Params, params: Params) -> Params:
        if self._adaptation.learned_rates:
            return _multiply(gradient, self._rates(params))
        return {name: value * self._adaptation.rate for name, value in gradient.items()}

    @staticmethod
    def _rates(params: Params) -> Params:
        """Return the learned rates by the names of their parameters."""
        return {name.removeprefix(RATE_PREFIX): value for name, value in params.items() if name.startswith(RATE_PREFIX)}

    @staticmethod
    def _in_order(gradient: Params, params: Params, chunk: Task) -> Params:
        """Return the tensors in the order of the meta-parameters, each ``(T, ...)``; missing ones are 0."""
        tasks = len(chunk.ys)
        return {n: gradient[n] if n in gradient else p.new_zeros(tasks, *p.shape) for n, p in params.items()}


def _mean_weights(weights: Tensor, change: Tensor | None) -> Hyper:
    rows = weights.shape[-1]
    return {VALUE: weights / rows} | ({} if change is None else {A: change / rows})


def _expand_over_tasks(params: Params, tasks: int) -> Params:
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def _sum_over_tasks(params: Params) -> Params:
    return {name: value.sum(0) for name, value in params.items()}
