"""The minimisers of one quadratic model within trust regions of all radii, from one Lanczos recurrence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.influence.solvers import Basis, Product, lanczos


class Krylov:
    """A space spanned by g, C g, C C g, ..., in which ``(C + shift I)^-1 g`` is a small matrix product for any shift.

    Args:
        product: ``v -> C v``, C symmetric.
        gradient: g ``(P,)``, not 0.
        products: Dimension of the space.
        on_product: Called with the number of products after each of them.
    """

    def __init__(
        self,
        product: Product,
        gradient: Tensor,
        products: int,
        on_product: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.basis: Basis = lanczos(product, gradient, products, start=gradient, on_iteration=on_product)
        self._coefficients = (self.basis.vectors @ gradient).double().cpu().numpy()

    @property
    def smallest(self) -> float:
        """Return the smallest Ritz value."""
        return float(self.basis.values[0])

    @property
    def largest(self) -> float:
        """Return the largest Ritz value."""
        return float(self.basis.values[-1])

    def step(self, shift: float) -> Tensor:
        """Return ``-(C + shift I)^-1 g``, ``(P,)``, projected on the space."""
        weights = -self._coefficients / (self.basis.values + shift)
        return torch.from_numpy(weights).to(self.basis.vectors) @ self.basis.vectors

    def decrease(self, shift: float, decay: float) -> float:
        """Return by how much ``step(shift)`` lowers the quadratic model ``g x + x (C + decay I) x / 2``."""
        values, squares = self.basis.values, self._coefficients**2
        linear_term = squares / (values + shift)
        quadratic_term = squares * (values + decay) / (values + shift) ** 2
        return float((linear_term - quadratic_term / 2).sum())
