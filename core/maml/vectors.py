"""Convert between dictionaries of parameters, as used by networks, and vectors, as used by linear algebra."""

from __future__ import annotations

import torch
from torch import Tensor

from core.maml.backbone import Params


def flatten(params: Params) -> Tensor:
    """Return all parameters as one vector ``(P,)``, in dictionary order."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Params) -> Params:
    """Return the dictionary with the names and shapes of ``like``; the inverse of :func:`flatten`."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}


def flatten_each(params: Params) -> Tensor:
    """Return tensors ``(n, ...)`` per parameter, such as the gradients of n tasks, as ``(n, P)``."""
    return torch.cat([value.flatten(1) for value in params.values()], 1)
