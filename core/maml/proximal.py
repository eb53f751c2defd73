"""Solve the proximal inner problem and apply its inverse Hessian, for many tasks at once.

Both operations iterate until every task of the chunk is solved, and code under ``vmap`` cannot branch on such a
condition. They are therefore autograd functions whose ``vmap`` rule adds a leading axis and calls them again, until
``forward`` receives the plain tensors of the whole chunk.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from core.maml.backbone import Network, Params
from core.maml.conjugate_gradients import BatchProduct, solve_batch
from core.maml.forward import jvp
from core.maml.objective import Task, inner_loss
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.runtime.hashing import content_hash

_MAX_NEWTON_STEPS, _MAX_HALVINGS = 50, 20


@dataclass(frozen=True)
class Proximal:
    """An inner problem that minimises ``L_I(theta) + proximity / 2 |theta - lambda|^2`` for one task.

    ``tolerance`` is that of the optimum and of products with the inverse Hessian, relative.
    """

    network: Network
    proximity: float
    tolerance: float

    def value(self, theta: Params, params: Params, task: Task) -> Tensor:
        """Return the objective at ``theta``, a scalar, with lambda = ``params``."""
        distance = torch.stack([((theta[name] - params[name]) ** 2).sum() for name in theta]).sum()
        return inner_loss(self.network, theta, task) + self.proximity / 2 * distance

    def gradient(self, theta: Params, params: Params, task: Task) -> Params:
        """Return g(theta, lambda, s), the gradient with respect to theta."""
        slope = grad(lambda p: inner_loss(self.network, p, task))(theta)
        return {name: slope[name] + self.proximity * (theta[name] - params[name]) for name in theta}

    def hessian_product(self, vector: Params, theta: Params, task: Task) -> Params:
        """Return H_in v, with the exact Hessian of the inner loss."""
        slope = grad(lambda p: inner_loss(self.network, p, task))
        product = jvp(slope, (theta,), (vector,))[1]
        return {name: product[name] + self.proximity * vector[name] for name in theta}


def proximal_optimum(problem: Proximal, params: Params, task: Task) -> Params:
    """Return the minimiser theta, a constant for derivatives; raise UserError if the solver misses the tolerance."""
    return unflatten(
        _Optimum.apply(flatten(params), task.xs, task.ys, task.s, problem, _ParamLayout.of(params)), params
    )


def inverse_product(problem: Proximal, vector: Params, theta: Params, task: Task) -> Params:
    """Return ``(H_in)^-1 v``, which is differentiable in v only; ``theta`` and ``task`` are treated as constants.

    Raises:
        UserError: the inner Hessian is not positive definite, or the solver did not reach the tolerance.
    """
    flat = _Inverse.apply(flatten(vector), flatten(theta), task.xs, task.ys, task.s, problem, _ParamLayout.of(theta))
    return unflatten(flat, theta)


@dataclass(frozen=True)
class _ParamLayout:
    """Names and shapes that split a vector without the parameter tensors."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, params: Params) -> _ParamLayout:
        return cls(tuple(params), tuple(tuple(value.shape) for value in params.values()))

    def split(self, flat: Tensor) -> Params:
        parts = flat.split([prod(shape) for shape in self.shapes])
        return {name: part.view(shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}


def _support_task(xs: Tensor, ys: Tensor, s: Tensor) -> Task:
    return Task(xs, ys, s, xs, ys, s)  # the query set is not used


_CACHE_BYTES = 256_000_000
# Every curvature product, gradient and score of a chunk starts from the same optima, which take most of the time.
# The optima of one chunk are always cached, whatever their size.
_optima: LRUCache[str, Tensor] = LRUCache(_CACHE_BYTES, getsizeof=lambda optima: min(optima.nbytes, _CACHE_BYTES))
_optima_lock = threading.Lock()


class _Optimum(torch.autograd.Function):
    @staticmethod
    def forward(params: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, layout: _ParamLayout) -> Tensor:
        lam, x, y, w = _flatten_batch_dims(params.dim() - 1, params, xs, ys, s)
        key = content_hash(repr(problem), *(value.detach().cpu().numpy() for value in (lam, x, y, w)))
        with _optima_lock:
            optima = _optima.get(key)
        if optima is None:
            optima = _minimise(lam, x, y, w, problem, layout)
            with _optima_lock:
                optima = _optima.setdefault(key, optima)  # another thread may have stored them in the meantime
        return optima.clone().view_as(params)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
        *tensors, problem, layout = inputs
        return _Optimum.apply(*_move_batch_dim_first(info.batch_size, in_dims, tensors), problem, layout), 0


class _Inverse(torch.autograd.Function):
    """The inverse Hessian is symmetric, and linear in the first argument, so the derivatives are the same function."""

    @staticmethod
    def forward(
        vector: Tensor, theta: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, layout: _ParamLayout
    ) -> Tensor:
        v, parameters, x, y, w = _flatten_batch_dims(vector.dim() - 1, vector, theta, xs, ys, s)
        return _solve(v, parameters, x, y, w, problem, layout).view_as(vector)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *tensors, ctx.problem, ctx.layout = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        solved = _Inverse.apply(gradient, *ctx.saved_tensors, ctx.problem, ctx.layout)
        return solved, None, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _Inverse.apply(tangent, *ctx.saved_tensors, ctx.problem, ctx.layout)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
        *tensors, problem, layout = inputs
        return _Inverse.apply(*_move_batch_dim_first(info.batch_size, in_dims, tensors), problem, layout), 0


def _move_batch_dim_first(size: int, dims: tuple[int | None, ...], tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors with the vmap axis first, expanded where a tensor has none."""
    pairs = zip(tensors, dims, strict=False)
    return [t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in pairs]


def _flatten_batch_dims(axes: int, *tensors: Tensor) -> list[Tensor]:
    """Return the tensors with their leading ``axes`` merged into one, or with a new axis if ``axes`` is 0."""
    return [t.flatten(0, axes - 1) if axes else t[None] for t in tensors]


def _minimise(params: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, layout: _ParamLayout) -> Tensor:
    """Return the optima ``(T, P)``, by Newton's method with conjugate gradients and backtracking.

    Conjugate gradients stop at negative curvature (Steihaug). All tensors have a first axis T.
    """

    def value_and_gradient(theta: Tensor, lam: Tensor, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        task, params = _support_task(x, y, w), layout.split(lam)
        gradient, value = grad_and_value(lambda p: problem.value(layout.split(p), params, task))(theta)
        return value, gradient

    def evaluate(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values and relative gradient norms ``(T,)``, with the gradients ``(T, P)`` between them."""
        value, gradient = vmap(value_and_gradient)(theta, params, xs, ys, s)
        proximal = problem.proximity * (theta - params)
        scale = (gradient - proximal).norm(dim=-1) + proximal.norm(dim=-1)
        return value, gradient, gradient.norm(dim=-1) / scale.clamp_min(torch.finfo(scale.dtype).tiny)

    rounding = torch.finfo(params.dtype).eps
    theta = params
    value, gradient, residual = evaluate(theta)
    for _ in range(_MAX_NEWTON_STEPS):
        if bool((residual <= problem.tolerance).all()):
            break
        newton = solve_batch(
            _hessian(theta, xs, ys, s, problem, layout),
            gradient,
            tolerance=min(0.1, problem.tolerance**0.5),
            iterations=_max_iterations(gradient),
            verify=False,  # the next gradient shows how good the step was
        )
        is_zero = (newton.x == 0).all(-1, keepdim=True)  # first direction had negative curvature
        step = -torch.where(is_zero, gradient, newton.x)
        size = torch.ones_like(value)
        slope = (gradient * step).sum(-1)
        for _ in range(_MAX_HALVINGS):
            next_value = evaluate(theta + size[:, None] * step)[0]
            is_worse = next_value > value + 1e-4 * size * slope + 4 * rounding * value.abs()
            if not bool(is_worse.any()):
                break
            size = torch.where(is_worse, size / 2, size)
        active = residual > problem.tolerance
        theta = torch.where(active[:, None], theta + size[:, None] * step, theta)
        value, gradient, residual = evaluate(theta)
    # In float32 rounding limits the gradient from below, so accept ten times the tolerance or that limit.
    if not bool((residual <= max(10 * problem.tolerance, 200 * rounding)).all()):
        raise UserError(
            f"The solver of the inner problem stopped at a residual of {float(residual.max()):.1e}, above the "
            f"tolerance of {problem.tolerance:.1e}.",
            "Raise the proximity or the inner tolerance, or compute in float64.",
        )
    return theta


def _solve(
    vector: Tensor, theta: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, layout: _ParamLayout
) -> Tensor:
    tolerance = max(problem.tolerance, 20 * torch.finfo(vector.dtype).eps)
    solution = solve_batch(
        _hessian(theta, xs, ys, s, problem, layout), vector, tolerance=tolerance, iterations=_max_iterations(vector)
    )
    if bool(solution.indefinite.any()):
        raise UserError(
            "The inner Hessian of a task is not positive definite, so its adaptation is not a differentiable function "
            "of the meta-parameters.",
            "Raise the proximity.",
        )
    if not bool((solution.residual <= 10 * tolerance).all()):
        raise UserError(
            f"A solve with the inner Hessian of a task stopped at a residual of {float(solution.residual.max()):.1e}: "
            "the matrix is nearly singular.",
            "Raise the proximity or the inner tolerance.",
        )
    return solution.x


def _hessian(theta: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, layout: _ParamLayout) -> BatchProduct:
    """Return ``v -> H_in v`` of every task, ``(T, P)`` to ``(T, P)``."""

    def product(v: Tensor, theta: Tensor, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return flatten(problem.hessian_product(layout.split(v), layout.split(theta), _support_task(x, y, w)))

    return lambda v: vmap(product)(v, theta, xs, ys, s)


def _max_iterations(b: Tensor) -> int:
    return 2 * b.shape[-1] + 10  # twice the P of exact arithmetic, plus a few for small P
