"""Damped inverse-curvature products, with a report of how well they were solved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """``x`` with ``(C + shift I) x = b``, and what is known of it.

    Attributes:
        x: ``(P,)``.
        iterations: Products with C.
        residual: ``|b - (C + shift I) x| / |b|``, computed afresh from ``x`` at the end.
        converged: Whether ``residual`` is at most the tolerance asked for.
        smallest, largest: Extreme Ritz values of C met on the way: the range of its eigenvalues as far as ``b``
            sees them. ``smallest`` below 0 says that C is indefinite.
    """

    x: Tensor
    iterations: int
    residual: float
    converged: bool
    smallest: float
    largest: float


class IndefiniteError(UserError):
    """C + shift I is not positive definite; ``curvature`` is a value of x^T C x / x^T x that was met."""

    def __init__(self, curvature: float, shift: float) -> None:
        super().__init__(
            f"The curvature is indefinite: a direction with curvature {curvature:.3g} was met, "
            f"which {shift:.3g} of weight decay and damping does not lift above 0.",
            f"Raise the damping above {-curvature:.3g}, or use the Gauss-Newton curvature.",
        )
        self.curvature = curvature


def conjugate_gradients(
    product: Product,
    b: Tensor,
    *,
    shift: float,
    tolerance: float = 1e-3,
    iterations: int = 100,
    on_iteration: Callable[[int, float], None] = lambda iteration, residual: None,
) -> Solution:
    """Solve ``(C + shift I) x = b`` for symmetric C (Hestenes and Stiefel 1952).

    Args:
        product: ``v -> C v``.
        b: ``(P,)``.
        shift: Weight decay plus damping.
        tolerance: Relative residual to stop at.
        iterations: Most products with C.
        on_iteration: Told the number of products and the running relative residual.

    Raises:
        IndefiniteError: a direction of curvature at most 0 was met.
        UserError: ``b`` or a product is not finite, or ``b`` is 0.
    """
    norm = float(b.norm())
    if not np.isfinite(norm) or norm == 0:
        what = "zero" if norm == 0 else "not finite"
        raise UserError(f"The right-hand side of the solve is {what}.", "Check the model and the evaluation target.")
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = float(r @ r)
    alphas: list[float] = []
    betas: list[float] = []
    for iteration in range(1, iterations + 1):
        ap = product(p) + shift * p
        curvature = float(p @ ap)
        if not np.isfinite(curvature):
            raise UserError("A product with the curvature is not finite.", "Check the model; try float64.")
        if curvature <= 0:
            raise IndefiniteError(curvature / float(p @ p) - shift, shift)
        alpha = rr / curvature
        x += alpha * p
        r -= alpha * ap
        new = float(r @ r)
        alphas.append(alpha)
        betas.append(new / rr)
        p = r + (new / rr) * p
        rr = new
        on_iteration(iteration, rr**0.5 / norm)
        if rr**0.5 <= tolerance * norm:
            break
    residual = float((b - product(x) - shift * x).norm()) / norm
    ritz = np.linalg.eigvalsh(_lanczos_matrix(alphas, betas)) - shift
    return Solution(x, len(alphas), residual, residual <= 1.1 * tolerance, float(ritz[0]), float(ritz[-1]))


def _lanczos_matrix(alphas: list[float], betas: list[float]) -> np.ndarray:
    """The tridiagonal matrix that the coefficients of conjugate gradients define (Saad 2003, section 6.7.3)."""
    a, b = np.array(alphas), np.array(betas)
    diagonal = 1 / a
    diagonal[1:] += b[:-1] / a[:-1]
    off = np.sqrt(b[:-1]) / a[:-1]
    return np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)


def largest_eigenvalue(
    product: Product, size: Tensor, *, iterations: int = 8, on_iteration: Callable[[], None] = lambda: None
) -> float:
    """Largest Ritz value of symmetric C after a few Lanczos steps from a fixed random vector like ``size``."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(size.shape, generator=generator, dtype=torch.float64).to(size)
    basis = [v / v.norm()]
    matrix = np.zeros((iterations, iterations))
    for step in range(iterations):
        w = product(basis[-1])
        on_iteration()
        for position, q in enumerate(basis):
            matrix[position, step] = float(q @ w)
        for q in basis:
            w = w - (q @ w) * q
        if not np.isfinite(matrix).all():
            raise UserError("A product with the curvature is not finite.", "Check the model; try float64.")
        if float(w.norm()) <= 1e-10 * abs(matrix).max():
            matrix = matrix[: step + 1, : step + 1]
            break
        basis.append(w / w.norm())
    return float(np.linalg.eigvalsh(matrix, UPLO="U")[-1])  # below the diagonal nothing was filled in
