"""Solve the proximal inner problem and apply its inverse Hessian, for many tasks at once.

Both operations iterate until every task of the chunk is solved, and code under ``vmap`` cannot branch on such a
condition. They are therefore autograd functions whose ``vmap`` rule adds a leading axis and calls them again, until
``forward`` receives the plain tensors of the whole chunk.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from core.maml.backbone import Network, Params
from core.maml.conjugate_gradients import BatchProduct, solve_batch
from core.maml.forward import jvp
from core.maml.objective import Task, inner_loss
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.runtime.files import content_hash

_MAX_NEWTON_STEPS, _MAX_HALVINGS = 50, 20


@dataclass(frozen=True)
class Proximal:
    """An inner problem that minimises ``L_I(theta) + proximity / 2 |theta - lambda|^2`` for one task.

    Attributes:
        network: The network of the inner loss.
        proximity: Weight of the proximal term.
        tolerance: Relative tolerance of the optimum and of products with the inverse Hessian.
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
        slope = grad(lambda at: inner_loss(self.network, at, task))(theta)
        return {name: slope[name] + self.proximity * (theta[name] - params[name]) for name in theta}

    def hessian_product(self, vector: Params, theta: Params, task: Task) -> Params:
        """Return H_in v, with the exact Hessian of the inner loss."""
        slope = grad(lambda at: inner_loss(self.network, at, task))
        curved = jvp(slope, (theta,), (vector,))[1]
        return {name: curved[name] + self.proximity * vector[name] for name in theta}


def proximal_optimum(problem: Proximal, params: Params, task: Task) -> Params:
    """Return the minimiser theta as a constant, through which no derivative propagates.

    Raises:
        UserError: the solver did not reach the tolerance.
    """
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
    """A list of parameter names and shapes that splits a vector without the parameter tensors."""

    names: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, params: Params) -> _ParamLayout:
        return cls(tuple(params), tuple(tuple(value.shape) for value in params.values()))

    def cut(self, flat: Tensor) -> Params:
        parts = flat.split([int(torch.Size(size).numel()) for size in self.sizes])
        return {name: part.view(size) for name, size, part in zip(self.names, self.sizes, parts, strict=True)}


def _support_task(xs: Tensor, ys: Tensor, s: Tensor) -> Task:
    """Return a task in which only the support set is used."""
    return Task(xs, ys, s, xs, ys, s)


class _TensorCache:
    """A least-recently-used cache of tensors that is limited by bytes and shared by the threads of a process.

    Every curvature product, gradient and score of a chunk starts from the same optimum, which takes most of the time.
    """

    def __init__(self, most_bytes: int) -> None:
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes, self._most = 0, most_bytes
        self._lock = threading.Lock()

    def get(self, key: str) -> Tensor | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, value: Tensor) -> Tensor:
        """Store ``value`` and return the stored tensor, which another thread may have stored before."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = value
                self._bytes += value.nbytes
            kept = self._kept[key]
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
            return kept


_optima = _TensorCache(256_000_000)


class _Optimum(torch.autograd.Function):
    @staticmethod
    def forward(params: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, shapes: _ParamLayout) -> Tensor:
        lam, x, y, w = _flatten_batch_dims(params.dim() - 1, params, xs, ys, s)
        key = content_hash(repr(problem), *(value.detach().cpu().numpy() for value in (lam, x, y, w)))
        found = _optima.get(key)
        if found is None:
            found = _optima.put(key, _minimise(lam, x, y, w, problem, shapes))
        return found.clone().view_as(params)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
        *tensors, problem, shapes = inputs
        return _Optimum.apply(*_move_batch_dim_first(info.batch_size, in_dims, tensors), problem, shapes), 0


class _Inverse(torch.autograd.Function):
    """An autograd function that applies the inverse Hessian, which is symmetric and linear in the first argument.

    Its derivatives therefore apply the same function.
    """

    @staticmethod
    def forward(
        vector: Tensor, theta: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, shapes: _ParamLayout
    ) -> Tensor:
        v, at, x, y, w = _flatten_batch_dims(vector.dim() - 1, vector, theta, xs, ys, s)
        return _solve(v, at, x, y, w, problem, shapes).view_as(vector)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *tensors, ctx.problem, ctx.shapes = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        solved = _Inverse.apply(gradient, *ctx.saved_tensors, ctx.problem, ctx.shapes)
        return solved, None, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _Inverse.apply(tangent, *ctx.saved_tensors, ctx.problem, ctx.shapes)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
        *tensors, problem, shapes = inputs
        return _Inverse.apply(*_move_batch_dim_first(info.batch_size, in_dims, tensors), problem, shapes), 0


def _move_batch_dim_first(size: int, dims: tuple[int | None, ...], tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors with the vmap axis in front, expanded where a tensor has none."""
    given = zip(tensors, dims, strict=False)
    return [t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in given]


def _flatten_batch_dims(axes: int, *tensors: Tensor) -> list[Tensor]:
    """Return the tensors with their leading ``axes`` merged into one, or with a new axis if ``axes`` is 0."""
    return [t.flatten(0, axes - 1) if axes else t[None] for t in tensors]


def _minimise(params: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, shapes: _ParamLayout) -> Tensor:
    """Minimise by Newton's method, with conjugate gradients (Steihaug's stop at negative curvature) and backtracking.

    Args:
        params: ``(T, P)``; the other tensors have a first axis T as well.

    Returns:
        The optima, ``(T, P)``.
    """

    def one(theta: Tensor, lam: Tensor, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        task, at = _support_task(x, y, w), shapes.cut(lam)
        slope, value = grad_and_value(lambda p: problem.value(shapes.cut(p), at, task))(theta)
        return value, slope

    def many(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, slope = vmap(one)(theta, params, xs, ys, s)
        pull = problem.proximity * (theta - params)
        scale = (slope - pull).norm(dim=-1) + pull.norm(dim=-1)
        return value, slope, slope.norm(dim=-1) / scale.clamp_min(torch.finfo(scale.dtype).tiny)

    rounding = torch.finfo(params.dtype).eps
    theta = params
    value, slope, residual = many(theta)
    for _ in range(_MAX_NEWTON_STEPS):
        if bool((residual <= problem.tolerance).all()):
            break
        newton = solve_batch(
            _hessian(theta, xs, ys, s, problem, shapes),
            slope,
            tolerance=min(0.1, problem.tolerance**0.5),
            iterations=_max_iterations(slope),
            verify=False,  # the next gradient shows how good the step was
        )
        is_zero = (newton.x == 0).all(-1, keepdim=True)  # first direction had negative curvature
        step = -torch.where(is_zero, slope, newton.x)
        size = torch.ones_like(value)
        foretold = (slope * step).sum(-1)
        for _ in range(_MAX_HALVINGS):
            tried = many(theta + size[:, None] * step)[0]
            worse = tried > value + 1e-4 * size * foretold + 4 * rounding * value.abs()
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        moving = residual > problem.tolerance
        theta = torch.where(moving[:, None], theta + size[:, None] * step, theta)
        value, slope, residual = many(theta)
    # In float32 rounding limits the gradient from below, so accept ten times the tolerance or that limit.
    allowed = max(10 * problem.tolerance, 200 * rounding)
    if not bool((residual <= allowed).all()):
        raise UserError(
            f"The inner problem of a task was solved to a residual of {float(residual.max()):.1e} only, "
            f"{problem.tolerance:.1e} was asked for.",
            "Raise the proximity or the inner tolerance, or compute in float64.",
        )
    return theta


def _solve(
    vector: Tensor, theta: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, shapes: _ParamLayout
) -> Tensor:
    tolerance = max(problem.tolerance, 20 * torch.finfo(vector.dtype).eps)
    solution = solve_batch(
        _hessian(theta, xs, ys, s, problem, shapes), vector, tolerance=tolerance, iterations=_max_iterations(vector)
    )
    if bool(solution.indefinite.any()):
        raise UserError(
            "The inner Hessian of a task is not positive definite: its adaptation is not a minimum that moves "
            "smoothly with the meta-parameters.",
            "Raise the proximity.",
        )
    if not bool((solution.residual <= 10 * tolerance).all()):
        raise UserError(
            f"A solve with the inner Hessian stopped at a residual of {float(solution.residual.max()):.1e}: "
            "it is nearly singular.",
            "Raise the proximity, or the inner tolerance.",
        )
    return solution.x


def _hessian(theta: Tensor, xs: Tensor, ys: Tensor, s: Tensor, problem: Proximal, shapes: _ParamLayout) -> BatchProduct:
    """Return ``v -> H_in v`` of every task, ``(T, P)`` to ``(T, P)``."""

    def one(v: Tensor, at: Tensor, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return flatten(problem.hessian_product(shapes.cut(v), shapes.cut(at), _support_task(x, y, w)))

    return lambda v: vmap(one)(v, theta, xs, ys, s)


def _max_iterations(b: Tensor) -> int:
    """Return the maximum number of iterations: twice the P of exact arithmetic, plus a few for small P."""
    return 2 * b.shape[-1] + 10
