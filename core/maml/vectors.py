"""Between the dictionary of parameters that networks take and the one vector that linear algebra takes."""

from __future__ import annotations

import torch
from torch import Tensor

from core.maml.backbone import Params


def flatten(params: Params) -> Tensor:
    """All parameters in one vector ``(P,)``, in the order of the dictionary."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of :func:`flatten`, with the names and shapes of ``like``."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}
