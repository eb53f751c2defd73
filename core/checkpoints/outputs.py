"""Check that a network has finite outputs with the parameters of a file."""

from __future__ import annotations

from pathlib import Path

import torch

from core.maml.adaptation import network_part
from core.maml.backbone import Network, Params
from core.runtime.errors import UserError

_USUAL = 100.0
"""Largest value of a parameter for which the outputs are not computed: six layers of 10,000 such inputs each reach
10^36, and single precision 10^38."""
_DIVERGED = "The training diverged: use an earlier checkpoint, or train with a lower rate."
_IMAGES = 2  # normalisation needs several


def check_finite(path: Path, tensors: Params) -> None:
    """Raise UserError, which names the tensor, if a value is NaN or infinite."""
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{path}: {name!r} contains NaN or infinity.", _DIVERGED)


def check_outputs(path: Path, network: Network, shape: tuple[int, int, int], params: Params) -> None:
    """Raise UserError if parameters are so large that the logits of noise are not finite in single precision.

    Args:
        path: File that errors name.
        shape: Height, width and channels of the images.
    """
    sizes = {name: float(value.abs().max()) for name, value in params.items() if value.numel()}
    largest = max(sizes, key=lambda name: sizes[name], default="")
    if sizes.get(largest, 0.0) <= _USUAL:
        return
    height, width, channels = shape
    noise = torch.rand((_IMAGES, channels, height, width), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network({name: value.float() for name, value in network_part(params).items()}, noise)
    if not torch.isfinite(logits).all():
        raise UserError(
            f"{path}: the outputs of the network are NaN or infinite; {largest!r} has the value {sizes[largest]:.1e}.",
            _DIVERGED,
        )
