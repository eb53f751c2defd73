"""Self-influence: what an item's removal does to its own loss, ``g^T (C + shift I)^-1 g``, for every item at once.

With ``B B^T = (C + shift I)^-1`` and random vectors r of independent unit variance, ``E (g . B r)^2`` is just that
(Hutchinson 1989). One pass of scores along ``u = B r`` gives ``g . u`` of every task and row, so that no gradient of a
row is ever formed or kept. B is made of a low-rank eigenbasis of C (:class:`core.influence.solvers.Basis`). What lies
in the basis is taken exactly, one pass a vector; only the rest is sketched.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.influence.solvers import Basis


def directions(basis: Basis, shift: float, exact: int, probes: int, seed: int = 0) -> Tensor:
    """``(exact + probes, P)``: squares of products with these rows add up to the self-influence.

    Args:
        exact: How many vectors of the basis, those of largest eigenvalue, get a direction of their own.
        probes: Random directions for everything orthogonal to them.
    """
    kept = basis.vectors[len(basis.values) - exact :]
    root = basis.inverse(shift, power=0.5)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(probes, kept.shape[1], generator=generator, dtype=torch.float64).to(kept)
    noise = noise - (noise @ kept.T) @ kept
    return torch.cat([root(kept), root(noise) / max(probes, 1) ** 0.5])


def relative_error(estimated: np.ndarray, exact: np.ndarray) -> float:
    """Median over items of ``|estimated - exact| / exact``."""
    return float(np.median(np.abs(estimated - exact) / exact))
