"""Damped inverse-curvature products by several solvers, with a report of how well they were solved.

Every solver takes a symmetric ``C`` as its products and answers with a :class:`Solution` of
``(C + shift I) x = b``; ``shift`` is weight decay plus damping.
:func:`core.influence.settings.check_fits` says which solver fits which curvature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.influence.probes import probe_vectors
from core.maml.conjugate_gradients import solve_batch
from core.runtime.errors import UserError

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """``x`` with ``(C + shift I) x = b``, and what is known of it.

    Attributes:
        x: ``(P,)``.
        iterations: Iterations of the solver, those after a restart included.
        residual: ``|b - (C + shift I) x| / |b|``, computed afresh from ``x`` at the end.
        converged: Whether ``residual`` is at most the tolerance asked for.
        smallest, largest: Extreme Ritz values of C met on the way: the range of its eigenvalues as far as ``b``
            sees them. ``smallest`` below 0 says that C is indefinite.
        products: Products with C, those that measure the residual included.
        replacements: How often conjugate gradients restarted from the true residual, because the recursive one had
            met the tolerance and the true one had not.
        stagnated: Whether rounding keeps the true residual above the tolerance: the last restart did not lower it.
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


class IndefiniteError(UserError):
    """C + shift I is not positive definite; ``curvature`` is a value of x^T C x / x^T x that was met."""

    def __init__(self, curvature: float, shift: float) -> None:
        super().__init__(
            f"The curvature is indefinite: a direction with curvature {curvature:.3g} was met, "
            f"which {shift:.3g} of weight decay and damping does not lift above 0.",
            f"Raise the damping above {-curvature:.3g}, or use the Gauss-Newton curvature.",
        )
        self.curvature = curvature


def _norm(b: Tensor) -> float:
    norm = float(b.norm())
    if not np.isfinite(norm) or norm == 0:
        what = "zero" if norm == 0 else "not finite"
        raise UserError(f"The right-hand side of the solve is {what}.", "Check the model and the evaluation target.")
    return norm


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
        product: ``v -> C v``.
        b: ``(P,)``.
        shift: Weight decay plus damping.
        tolerance: Relative residual to stop at.
        iterations: Most iterations, each of one product with C; products for true residuals come on top.
        precondition: ``v -> M v``, M positive definite and close to the inverse of C + shift I
            (:meth:`Basis.inverse`). The extreme Ritz values are then Rayleigh quotients of C along the search
            directions; see ``smallest`` of the basis for tighter ones.
        on_iteration: Called with the number of iterations and the recursive relative residual.

    Raises:
        IndefiniteError: a direction of curvature at most 0 was met.
        UserError: ``b`` or a product is not finite, or ``b`` is 0.
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
        raise UserError("A product with the curvature is not finite.", "Check the model; try float64.")
    if bool(solution.indefinite):
        raise IndefiniteError(float(quotients[-1]), shift)
    if precondition:  # the coefficients are those of another matrix, but Rayleigh quotients are of C all the same
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
    """The tridiagonal matrix that the coefficients of conjugate gradients define (Saad 2003, section 6.7.3).

    A beta of 0, where the iteration restarted, makes it block diagonal: each run has its own block.
    """
    a, b = (np.array([float(one) for one in many]) for many in (alphas, betas))
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
    """The Neumann series of the paper (Alg 4, with the sign of the appendix corrected), scaled so that it converges.

    ``x <- x + w (b - (C + shift I) x)`` from ``x = w b`` is the series of ``(w (C + shift I))^-1`` times w; w is
    ``1 / (1.1 largest + shift)``, so that all eigenvalues of ``w (C + shift I)`` lie below 1.

    Args:
        largest: Largest eigenvalue of C (:func:`largest_eigenvalue`).

    Raises:
        UserError: the series diverges, or ``b`` is 0 or not finite.
    """
    norm = _norm(b)
    step = 1 / (1.1 * max(largest, 0.0) + shift)
    x, residual, best = torch.zeros_like(b), b.clone(), 1.0
    quotients: list[float] = []
    done = 0
    for done in range(1, iterations + 1):
        x = x + step * residual
        cx = product(x)
        residual = b - cx - shift * x
        relative = float(residual.norm()) / norm
        if not np.isfinite(relative) or relative > 2 * max(best, 1.0):
            raise UserError(
                f"The Neumann series diverges: after {done} terms its residual is {relative:.1e}.",
                "Raise the damping, or use cg, which says how indefinite the curvature is.",
            )
        best = min(best, relative)
        quotients.append(float(x @ cx) / float(x @ x))
        on_iteration(done, relative)
        if relative <= tolerance:
            break
    residual_now = float(residual.norm()) / norm
    return Solution(x, done, residual_now, residual_now <= tolerance, min(quotients), max(quotients), products=done)


@dataclass(frozen=True)
class Basis:
    """A low-rank eigenbasis of C: orthonormal ``vectors`` ``(r, P)`` with eigenvalues ``values`` ``(r,)``, ascending.

    Where it stands for C, what is orthogonal to it has curvature 0, so that ``shift`` alone damps it.
    """

    vectors: Tensor
    values: np.ndarray

    def inverse(self, shift: float, power: float = 1.0) -> Product:
        """``v -> (C + shift I)^-power v`` for ``(P,)`` or, row by row, ``(n, P)``.

        Raises:
            IndefiniteError: a value is not lifted above 0.
            UserError: there is no shift at all.
        """
        if shift <= 0:
            raise UserError("A low-rank curvature needs damping or weight decay.", "Raise the damping.")
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
    """Ritz pairs of symmetric C after ``rank`` steps from a vector (Lanczos 1950).

    Args:
        like: ``(P,)``, of the device and precision wanted; its values do not matter.
        start: The vector, not 0, which the basis then holds whole; None: a fixed random one.

    Raises:
        UserError: a product is not finite.
    """
    v = probe_vectors(like.shape, like, 0) if start is None else start.to(like)
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
            raise UserError("A product with the curvature is not finite.", "Check the model; try float64.")
        w = w - inside @ stacked
        w = w - (stacked @ w) @ stacked  # once more, or rounding brings old directions back
        if step == rank - 1 or float(w.norm()) <= 1e-10 * max(np.abs(matrix).max(), 1e-300):
            matrix = matrix[: step + 1, : step + 1]
            break
        basis.append(w / w.norm())
    values, rotation = np.linalg.eigh(matrix)
    return Basis(torch.from_numpy(rotation.T.copy()).to(v) @ torch.stack(basis), values)


def largest_eigenvalue(
    product: Product, like: Tensor, *, iterations: int = 8, on_iteration: Callable[[int], None] = lambda done: None
) -> float:
    """Largest Ritz value of symmetric C after a few steps of :func:`lanczos`."""
    return float(lanczos(product, like, iterations, on_iteration=on_iteration).values[-1])


def low_rank(product: Product, b: Tensor, basis: Basis, *, shift: float) -> Solution:
    """Solve with :class:`Basis` in the place of C. The residual is of C itself, so it says what the rank left out;
    ``converged`` is whether that is below 1, better than nothing.
    """
    norm = _norm(b)
    x = basis.inverse(shift)(b)
    residual = float((b - product(x) - shift * x).norm()) / norm
    smallest, largest = float(basis.values[0]), float(basis.values[-1])
    return Solution(x, len(basis.values), residual, residual < 1, smallest, largest, products=1)


def residual_sketch(
    product: Product, basis: Basis, probes: int, *, on_iteration: Callable[[int], None] = lambda done: None
) -> Tensor:
    """``(probes, P)``: what a basis leaves out of C, times random vectors w of unit variance.

    Kept with a basis it says at once how far any later solve is off (:func:`sketched_residual`), where a residual
    afresh would cost a product with C.
    """
    generator = torch.Generator().manual_seed(2)
    rows = torch.empty(probes, basis.vectors.shape[1], dtype=basis.vectors.dtype, device=basis.vectors.device)
    values = torch.from_numpy(basis.values).to(rows)
    for row in range(probes):
        w = probe_vectors(rows.shape[1:], rows, generator)
        rows[row] = product(w) - (basis.vectors @ w * values) @ basis.vectors
        on_iteration(row + 1)
    return rows


def sketched_residual(sketch: Tensor, x: Tensor, b: Tensor) -> float:
    """The relative residual of ``x``, which solves for ``b`` with a basis, from its :func:`residual_sketch`.

    With D what is left out, the residual is ``-D x``, and ``E (w . D x)^2 = |D x|^2``. From m probes its error is
    about ``1 / sqrt(2 m)`` of it.

    Raises:
        UserError: ``b`` is 0 or not finite.
    """
    along = (sketch @ x).double()
    return float(along.square().mean().sqrt()) / _norm(b)


def dual(gradients: Tensor, b: Tensor, *, shift: float, scale: float = 1.0) -> Solution:
    """Solve with ``C = scale sum_k g_k g_k^T`` through the m x m matrix of the products of the g_k (Woodbury).

    Args:
        gradients: ``(m, P)``.
        scale: N / m where the m tasks stand for N.
    """
    norm = _norm(b)
    if shift <= 0:
        raise UserError("The dual solver needs damping or weight decay.", "Raise the damping.")
    rows = gradients.double() * scale**0.5
    gram = rows @ rows.T
    identity = torch.eye(len(rows), dtype=torch.float64, device=rows.device)
    b64 = b.double()
    x = ((b64 - rows.T @ torch.linalg.solve(gram + shift * identity, rows @ b64)) / shift).to(b)
    residual = float((b64 - rows.T @ (rows @ x.double()) - shift * x.double()).norm()) / norm
    values = torch.linalg.eigvalsh(gram)
    return Solution(x, 1, residual, residual <= 1e-4, float(values[0]), float(values[-1]), products=0)
