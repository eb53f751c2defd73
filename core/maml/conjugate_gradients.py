"""Solve a batch of symmetric systems by conjugate gradients with residual replacement.

The recurrence of conjugate gradients updates the residual without using x. In finite precision it deviates from the
true residual ``b - A x`` by about the rounding error of ``A x`` (Greenbaum 1997), and can fall below any tolerance
while the true residual does not. The true residual therefore decides convergence: if it is above the tolerance when the
recursive residual is not, it replaces the recursive residual and the iteration restarts (van der Vorst and Ye 2000),
until it meets the tolerance or no longer decreases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BatchProduct = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class BatchSolution:
    """A batch of solutions of T systems with P unknowns each, with convergence diagnostics.

    Attributes:
        residual: ``|b - A x| / |b|``, ``(T,)``, 0 where b is 0; the recursive one if the solve was not verified.
        converged: Whether ``residual`` is at most the tolerance, ``(T,)``.
        indefinite: Whether a direction of nonpositive curvature was found, which ends the solve of that system,
            ``(T,)``.
        stagnated: Whether rounding keeps the residual above the tolerance, ``(T,)``: the last restart from the true
            residual met the tolerance by its recursive residual, but did not lower the true one.
        replacements: Restarts from the true residual, ``(T,)``.
        products: Products with A, each of the whole batch: one per iteration and one per true residual.
        alphas, betas: Coefficients of the recurrence, ``(T,)`` per iteration; beta is 0 before a restart.
        quotients: ``p^T A p / p^T p`` of the search directions, ``(T,)`` per iteration.
    """

    x: Tensor
    residual: Tensor
    converged: Tensor
    indefinite: Tensor
    stagnated: Tensor
    replacements: Tensor
    products: int
    alphas: list[Tensor]
    betas: list[Tensor]
    quotients: list[Tensor]


def solve_batch(
    product: BatchProduct,
    b: Tensor,
    *,
    tolerance: float,
    iterations: int,
    precondition: BatchProduct | None = None,
    verify: bool = True,
    on_iteration: Callable[[int, Tensor], None] = lambda iteration, residual: None,
) -> BatchSolution:
    """Solve ``A x = b``, ``(T, P)``, for a batch of symmetric A.

    Args:
        tolerance: Relative residual to stop at.
        iterations: Maximum number of iterations, not counting the products for true residuals.
        precondition: ``v -> M v``, M positive definite and close to the inverse of A.
        verify: Whether to compute true residuals. False suffices if only a descent direction is needed.
        on_iteration: Called with the number of iterations and the recursive relative residuals ``(T,)``.
    """
    norm = b.norm(dim=-1)
    scale, target = torch.where(norm > 0, norm, 1), tolerance * norm
    x, r, size, active = torch.zeros_like(b), b, norm, norm > 0
    indefinite, stagnated = torch.zeros_like(active), torch.zeros_like(active)
    replacements = torch.zeros_like(active, dtype=torch.int64)
    record, checks = _Record([], [], []), 0

    def report(iteration: int, size: Tensor) -> None:
        on_iteration(iteration, size / scale)

    while True:
        step, recursive_size, is_indefinite = _iterate(
            product, precondition, r, active, target, iterations, record, report
        )
        indefinite = indefinite | is_indefinite
        if not verify or bool(indefinite.all()):
            x, size = x + step, torch.where(active, recursive_size, size)
            break
        next_x = x + step
        next_r = b - product(next_x)
        checks += 1
        falls = next_r.norm(dim=-1) < size if checks > 1 else torch.ones_like(active)
        meets_target = active & (recursive_size <= target)
        stagnated = stagnated | (meets_target & ~falls)
        x, r = torch.where(falls[:, None], next_x, x), torch.where(falls[:, None], next_r, r)
        size = r.norm(dim=-1)
        active = meets_target & falls & (size > target)
        if not bool(active.any()) or len(record.alphas) >= iterations:
            break
        replacements = replacements + active
        record.betas[-1] = torch.zeros_like(norm)
    return BatchSolution(
        x=x,
        residual=size / scale,
        converged=size <= target,
        indefinite=indefinite,
        stagnated=stagnated,
        replacements=replacements,
        products=len(record.alphas) + checks,
        **record._asdict(),
    )


class _Record(NamedTuple):
    alphas: list[Tensor]
    betas: list[Tensor]
    quotients: list[Tensor]


def _iterate(
    product: BatchProduct,
    precondition: BatchProduct | None,
    r: Tensor,
    active: Tensor,
    target: Tensor,
    iterations: int,
    record: _Record,
    on_iteration: Callable[[int, Tensor], None],
) -> tuple[Tensor, Tensor, Tensor]:
    """Run conjugate gradients (Hestenes and Stiefel 1952) for ``A x = r`` where ``active``, from x = 0.

    A system ends if the norm of its recursive residual is at most ``target``, ``(T,)``, or if nonpositive curvature is
    found. ``iterations`` includes those already in ``record``.

    Returns:
        x ``(T, P)``, 0 where not active; norms of the recursive residuals ``(T,)``; whether nonpositive curvature was
        found ``(T,)``.
    """
    x, size, indefinite = torch.zeros_like(r), r.norm(dim=-1), torch.zeros_like(active)
    p = z = precondition(r) if precondition else r
    rz = _dot(r, z)
    while bool(active.any()) and len(record.alphas) < iterations:
        ap = product(p)
        curvature = _dot(p, ap)
        record.quotients.append(curvature / _dot(p, p))
        indefinite = indefinite | (active & (curvature <= 0))
        active = active & ~indefinite
        alpha = torch.where(active, rz / torch.where(active, curvature, 1), 0)
        x = x + alpha[:, None] * p
        r = r - alpha[:, None] * ap
        z = precondition(r) if precondition else r
        new = _dot(r, z)
        beta = torch.where(active, new / torch.where(active, rz, 1), 0)
        p = torch.where(active[:, None], z + beta[:, None] * p, p)
        rz = torch.where(active, new, rz)
        size = r.norm(dim=-1)
        active = active & (size > target)
        record.alphas.append(alpha)
        record.betas.append(beta)
        on_iteration(len(record.alphas), size)
    return x, size, indefinite


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)
