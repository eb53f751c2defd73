"""Solvers for damped inverse-curvature products.

Every solver takes a symmetric ``C`` as a product ``v -> C v`` and a vector b ``(P,)``, and returns a :class:`Solution`
of ``(C + shift I) x = b``; ``shift`` is weight decay plus damping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.maml.conjugate_gradients import solve_batch
from core.runtime.errors import UserError

Product = Callable[[Tensor], Tensor]
RIGHT_HAND_SIDE, NOT_FINITE, INDEFINITE = "right-hand side", "not finite", "indefinite"
DIVERGED, NOT_CONVERGED, NO_DAMPING = "diverged", "not converged", "no damping"
_NEUMANN_MARGIN = 1.1  # over the estimate of the largest eigenvalue, which is a lower bound
_NEUMANN_GROWTH = 2  # of the residual over the best so far, beyond which the series counts as divergent
_BREAKDOWN = 1e-10  # norm of a new Lanczos vector, relative to the matrix, below which the space is exhausted
_DUAL_TOLERANCE = 1e-4  # of a direct solve in float64
_LANCZOS_SEED, _SKETCH_SEED = 0, 2


@dataclass(frozen=True)
class Solution:
    """A solution of ``(C + shift I) x = b`` with its diagnostics.

    Attributes:
        iterations: Iterations of the solver, those after a restart included.
        residual: ``|b - (C + shift I) x| / |b|``, computed from the final ``x``.
        converged: Whether ``residual`` is at most the tolerance.
        smallest, largest: Extreme Ritz values of C: the range of its eigenvalues in the space that ``b`` spans.
            ``smallest`` below 0 shows that C is indefinite.
        products: Products with C, those that measure the residual included.
        replacements, stagnated: Of conjugate gradients (:class:`core.maml.conjugate_gradients.BatchSolution`).
    """

    x: Tensor
    iterations: int
    residual: float
    converged: bool
    smallest: float
    largest: float
    products: int
    replacements: int = 0
    stagnated: bool = False


class SolveError(UserError):
    """A solve that failed; ``reason`` is one of the constants of this module."""

    def __init__(self, reason: str, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.reason = reason


class IndefiniteError(SolveError):
    """An error for C + shift I not positive definite; ``curvature`` is x^T C x / x^T x of one direction."""

    def __init__(self, curvature: float, shift: float) -> None:
        super().__init__(
            INDEFINITE,
            f"The curvature is indefinite: one direction has curvature {curvature:.3g}, "
            f"which weight decay and damping of {shift:.3g} do not raise above 0.",
            f"Raise the damping above {-curvature:.3g}, or use the Gauss-Newton curvature.",
        )
        self.curvature = curvature


def probe_vectors(shape: Sequence[int], like: Tensor, generator: torch.Generator | int) -> Tensor:
    """Return independent standard normal values of ``shape`` on the device and in the precision of ``like``.

    They are drawn on the CPU in float64, by a CPU generator or from a seed, and are therefore the same on every device
    and in every precision.
    """
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(like)


def _norm(b: Tensor) -> float:
    norm = float(b.norm())
    if not np.isfinite(norm) or norm == 0:
        what = "zero" if norm == 0 else "not finite"
        advice = "Check the model and the evaluation target."
        raise SolveError(RIGHT_HAND_SIDE, f"The right-hand side of the solve is {what}.", advice)
    return norm


def _not_finite() -> SolveError:
    return SolveError(NOT_FINITE, "A product with the curvature is not finite.", "Check the model; try float64.")


def conjugate_gradients(
    product: Product,
    b: Tensor,
    *,
    shift: float,
    tolerance: float = 1e-3,
    iterations: int = 100,
    precondition: Product | None = None,
    on_iteration: Callable[[int, float], None] = lambda iteration, residual: None,
) -> Solution:
    """Solve ``(C + shift I) x = b`` for symmetric C (:func:`core.maml.conjugate_gradients.solve_batch`).

    Args:
        tolerance: Relative residual to stop at.
        iterations: Maximum number of iterations, each of one product with C; products for true residuals are extra.
        precondition: ``v -> M v``, M positive definite and close to the inverse of C + shift I
            (:meth:`Basis.inverse`). The extreme Ritz values are then Rayleigh quotients of C along the search
            directions.
        on_iteration: Called with the number of iterations and the recursive relative residual.

    Raises:
        IndefiniteError: a direction has a curvature of at most 0.
        SolveError: ``b`` or a product is not finite, or ``b`` is 0.
    """
    _norm(b)
    solution = solve_batch(
        lambda v: (product(v[0]) + shift * v[0])[None],
        b[None],
        tolerance=tolerance,
        iterations=iterations,
        precondition=precondition,
        on_iteration=lambda iteration, residual: on_iteration(iteration, float(residual)),
    )
    quotients = np.array([float(quotient) for quotient in solution.quotients]) - shift
    if not np.isfinite(quotients).all():
        raise _not_finite()
    if bool(solution.indefinite):
        raise IndefiniteError(float(quotients[-1]), shift)
    if precondition:  # whose coefficients belong to another matrix; Rayleigh quotients still belong to C
        ritz = np.sort(quotients)
    else:
        ritz = np.linalg.eigvalsh(_lanczos_matrix(solution.alphas, solution.betas)) - shift
    return Solution(
        x=solution.x[0],
        iterations=len(solution.alphas),
        residual=float(solution.residual),
        converged=bool(solution.converged),
        smallest=float(ritz[0]),
        largest=float(ritz[-1]),
        products=solution.products,
        replacements=int(solution.replacements),
        stagnated=bool(solution.stagnated),
    )


def _lanczos_matrix(alphas: list[Tensor], betas: list[Tensor]) -> np.ndarray:
    """Return the tridiagonal matrix of the coefficients of conjugate gradients (Saad 2003, section 6.7.3)."""
    a, b = (np.array([float(value) for value in values]) for values in (alphas, betas))
    diagonal = 1 / a
    diagonal[1:] += b[:-1] / a[:-1]
    off = np.sqrt(b[:-1]) / a[:-1]
    return np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)


def neumann(
    product: Product,
    b: Tensor,
    *,
    shift: float,
    largest: float,
    tolerance: float = 1e-3,
    iterations: int = 100,
    on_iteration: Callable[[int, float], None] = lambda iteration, residual: None,
) -> Solution:
    """Solve by the Neumann series of the paper (Alg 4, with the sign of the appendix corrected), scaled to converge.

    ``x <- x + w (b - (C + shift I) x)`` from ``x = w b`` is the series of ``(w (C + shift I))^-1`` times w; w is
    ``1 / (1.1 largest + shift)``, so that all eigenvalues of ``w (C + shift I)`` lie below 1.

    Args:
        largest: Estimate of the largest eigenvalue of C, by a few steps of :func:`lanczos`.

    Raises:
        SolveError: the series diverges, or ``b`` is 0 or not finite.
    """
    norm = _norm(b)
    step = 1 / (_NEUMANN_MARGIN * max(largest, 0.0) + shift)
    x, residual, best = torch.zeros_like(b), b.clone(), 1.0
    quotients: list[float] = []
    for terms in range(1, iterations + 1):
        x = x + step * residual
        cx = product(x)
        residual = b - cx - shift * x
        relative = float(residual.norm()) / norm
        if not np.isfinite(relative) or relative > _NEUMANN_GROWTH * max(best, 1.0):
            raise SolveError(
                DIVERGED,
                f"The Neumann series diverges: after {terms} terms its residual is {relative:.1e}.",
                "Raise the damping, or use cg, which reports how indefinite the curvature is.",
            )
        best = min(best, relative)
        quotients.append(float(x @ cx) / float(x @ x))
        on_iteration(terms, relative)
        if relative <= tolerance:
            break
    return Solution(x, terms, relative, relative <= tolerance, min(quotients), max(quotients), products=terms)


@dataclass(frozen=True)
class Basis:
    """A low-rank eigenbasis of C: orthonormal ``vectors`` ``(r, P)`` with eigenvalues ``values`` ``(r,)``, ascending.

    As a substitute for C it has curvature 0 in every direction orthogonal to the vectors, which ``shift`` alone damps.
    """

    vectors: Tensor
    values: np.ndarray

    def inverse(self, shift: float, power: float = 1.0) -> Product:
        """Return ``v -> (C + shift I)^-power v`` for ``(P,)`` or, row by row, ``(n, P)``.

        Raises:
            IndefiniteError: the shift does not raise every eigenvalue above 0.
            SolveError: the shift is 0.
        """
        if shift <= 0:
            raise SolveError(
                NO_DAMPING, "A low-rank curvature needs damping or weight decay above 0.", "Raise the damping."
            )
        if self.values[0] + shift <= 0:
            raise IndefiniteError(float(self.values[0]), shift)
        inside = (self.values + shift) ** -power - shift**-power
        weights = torch.from_numpy(inside).to(self.vectors)

        def apply(v: Tensor) -> Tensor:
            return shift**-power * v + ((v @ self.vectors.T) * weights) @ self.vectors

        return apply


def lanczos(
    product: Product,
    like: Tensor,
    rank: int,
    *,
    start: Tensor | None = None,
    on_iteration: Callable[[int], None] = lambda done: None,
) -> Basis:
    """Return the Ritz pairs of symmetric C after ``rank`` steps (Lanczos 1950), with full reorthogonalisation.

    Args:
        like: ``(P,)``, on the device and in the precision to compute in; its values do not matter.
        start: The start vector, not 0, which then lies in the span of the basis; None: a fixed random one.

    Raises:
        SolveError: a product is not finite.
    """
    v = probe_vectors(like.shape, like, _LANCZOS_SEED) if start is None else start.to(like)
    rank = min(rank, v.numel())
    basis = [v / v.norm()]
    matrix = np.zeros((rank, rank))
    for step in range(rank):
        w = product(basis[-1])
        on_iteration(step + 1)
        stacked = torch.stack(basis)
        inside = stacked @ w
        matrix[: step + 1, step] = matrix[step, : step + 1] = inside.double().cpu().numpy()
        if not np.isfinite(matrix).all():
            raise _not_finite()
        w = w - inside @ stacked
        w = w - (stacked @ w) @ stacked  # twice, or rounding reintroduces earlier directions
        if step == rank - 1 or float(w.norm()) <= _BREAKDOWN * max(np.abs(matrix).max(), 1e-300):
            matrix = matrix[: step + 1, : step + 1]
            break
        basis.append(w / w.norm())
    values, rotation = np.linalg.eigh(matrix)
    return Basis(torch.from_numpy(rotation.T.copy()).to(v) @ torch.stack(basis), values)


def low_rank(product: Product, b: Tensor, basis: Basis, *, shift: float) -> Solution:
    """Solve with a :class:`Basis` in place of C.

    The residual is that of C itself, so that it shows the error of the low rank; ``converged`` is whether it is below
    1, that of the solution 0.
    """
    norm = _norm(b)
    x = basis.inverse(shift)(b)
    residual = float((b - product(x) - shift * x).norm()) / norm
    smallest, largest = float(basis.values[0]), float(basis.values[-1])
    return Solution(x, len(basis.values), residual, residual < 1, smallest, largest, products=1)


def residual_sketch(
    product: Product, basis: Basis, probes: int, *, on_iteration: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Return ``(probes, P)``: C minus its low-rank approximation, times random vectors w of unit variance.

    Stored with a basis, it gives the residual of any later solve (:func:`sketched_residual`) without a product with C.
    """
    generator = torch.Generator().manual_seed(_SKETCH_SEED)
    rows = torch.empty(probes, basis.vectors.shape[1], dtype=basis.vectors.dtype, device=basis.vectors.device)
    values = torch.from_numpy(basis.values).to(rows)
    for row in range(probes):
        w = probe_vectors(rows.shape[1:], rows, generator)
        rows[row] = product(w) - (basis.vectors @ w * values) @ basis.vectors
        on_iteration(row + 1)
    return rows


def sketched_residual(sketch: Tensor, x: Tensor, b: Tensor) -> float:
    """Estimate the relative residual of ``x``, a low-rank solution for ``b``, from a :func:`residual_sketch`.

    With D the error of the low-rank approximation, the residual is ``-D x``, and ``E (w . D x)^2 = |D x|^2``. The
    relative standard error with m probes is about ``1 / sqrt(2 m)``.

    Raises:
        SolveError: ``b`` is 0 or not finite.
    """
    along = (sketch @ x).double()
    return float(along.square().mean().sqrt()) / _norm(b)


def dual(gradients: Tensor, b: Tensor, *, shift: float, scale: float = 1.0) -> Solution:
    """Solve with ``C = scale sum_k g_k g_k^T`` through the m x m Gram matrix of the g_k (Woodbury).

    ``scale`` is N / m if the m tasks are a sample of N.

    Raises:
        SolveError: the shift is 0, or ``b`` is 0 or not finite.
    """
    norm = _norm(b)
    if shift <= 0:
        raise SolveError(NO_DAMPING, "The dual solver needs damping or weight decay above 0.", "Raise the damping.")
    rows = gradients.double() * scale**0.5
    gram = rows @ rows.T
    identity = torch.eye(len(rows), dtype=torch.float64, device=rows.device)
    b64 = b.double()
    x = ((b64 - rows.T @ torch.linalg.solve(gram + shift * identity, rows @ b64)) / shift).to(b)
    residual = float((b64 - rows.T @ (rows @ x.double()) - shift * x.double()).norm()) / norm
    values = torch.linalg.eigvalsh(gram)
    return Solution(x, 1, residual, residual <= _DUAL_TOLERANCE, float(values[0]), float(values[-1]), products=0)
