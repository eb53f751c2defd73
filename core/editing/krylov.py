"""The minimisers of one quadratic model within trust regions of all radii, from one Lanczos recurrence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.influence.solvers import Basis, Product, lanczos


class Krylov:
    """The space of g, C g, C C g ..., in which ``(C + shift I)^-1 g`` is a small matrix away for every shift.

    Args:
        product: ``v -> C v``, C symmetric.
        gradient: g ``(P,)``, not 0.
        products: Dimension of the space.
        on_product: Told the number of products.
    """

    def __init__(
        self,
        product: Product,
        gradient: Tensor,
        products: int,
        on_product: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.basis: Basis = lanczos(product, gradient, products, start=gradient, on_iteration=on_product)
        self._along = (self.basis.vectors @ gradient).double().cpu().numpy()

    @property
    def smallest(self) -> float:
        return float(self.basis.values[0])

    @property
    def largest(self) -> float:
        return float(self.basis.values[-1])

    def step(self, shift: float) -> Tensor:
        """``-(C + shift I)^-1 g``, ``(P,)``, exact where the space holds it."""
        weights = -self._along / (self.basis.values + shift)
        return torch.from_numpy(weights).to(self.basis.vectors) @ self.basis.vectors

    def decrease(self, shift: float, decay: float) -> float:
        """What the step to ``shift`` takes off ``g x + x (C + decay I) x / 2``, by that quadratic model itself."""
        values, squares = self.basis.values, self._along**2
        slope = squares / (values + shift)
        bend = squares * (values + decay) / (values + shift) ** 2
        return float((slope - bend / 2).sum())
