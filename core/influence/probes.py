"""Random probe vectors that are the same on every device and in every precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def probe_vectors(shape: Sequence[int], like: Tensor, generator: torch.Generator | int) -> Tensor:
    """Return independent standard normal values of ``shape`` on the device and in the precision of ``like``.

    They are drawn on the CPU in float64.

    Args:
        generator: A CPU generator, or the seed of a new one.
    """
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(like)
