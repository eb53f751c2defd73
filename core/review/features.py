"""Features of images: the inputs of the network's layers at the meta-parameters, which all tasks share.

Few-shot networks have narrow last layers that separate a few classes; the inputs of earlier layers, pooled over a
coarse grid, separate many classes at no extra cost. Averaging over small shifts of the image removes detail that a
class does not depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.data import ImageSet
from core.maml.backbone import Layered, Network, Params
from core.maml.module import ModuleNet

_BATCH = 256
"""Images of all classes at random, as the network may normalise by the statistics of the batch."""
_GRID = 4
"""Feature maps are pooled to this many cells per side."""
_LAYERS, _MAX_COLUMNS = 4, 1024
"""The last layers that are used; wider ones are projected at random to this many columns."""
_SHIFT = 2 / 28
"""Shift of the image as a share of its side."""
SHIFTS = 9
"""Shifted copies of an image: -1, 0 and 1 times the shift in both directions."""


def image_features(
    network: Network,
    params: Params,
    images: ImageSet,
    positions: np.ndarray,
    on_batch: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Return features ``(n, d)`` float32 of mean 0; the variances of each layer's columns add up to 1.

    Args:
        positions: ``(n,)`` of the images in the image set; they are read in random batches.
        on_batch: Called after each batch with its number of images times ``SHIFTS``.
    """
    order = np.random.default_rng(0).permutation(len(positions))
    like = next(iter(params.values()))
    by = [max(1, round(_SHIFT * side)) for side in images.shape[:2]]
    shifts = list(product((-by[0], 0, by[0]), (-by[1], 0, by[1])))
    parts: list[list[np.ndarray]] = []
    with torch.no_grad():
        for batch in np.array_split(order, -(-len(order) // _BATCH)):
            pixels = torch.from_numpy(images.images[positions[batch]]).to(like.device)
            x = pixels.permute(0, 3, 1, 2).to(like.dtype) / 255
            inputs = [_layer_features(network, params, x.roll(shift, (2, 3))) for shift in shifts]
            parts.append([torch.stack(layer).mean(0).cpu().numpy() for layer in zip(*inputs, strict=True)])
            on_batch(len(batch) * SHIFTS)
    original_order = np.argsort(order)
    return np.concatenate(
        [_standardised(np.concatenate(layer)[original_order]) for layer in zip(*parts, strict=True)], 1
    )


def _standardised(layer: np.ndarray) -> np.ndarray:
    layer = layer - layer.mean(0)
    return layer / max(float(np.sqrt((layer**2).mean(0).sum())), 1e-12)


def _layer_features(network: Network, params: Params, x: Tensor) -> list[Tensor]:
    inputs = _layer_inputs(network, params, x)[1:] or [x]
    return [_pooled(layer).float() for layer in inputs[-_LAYERS:]]


def _pooled(layer: Tensor) -> Tensor:
    """Return ``(n, d)`` inputs of a layer; maps ``(n, channels, height, width)`` are averaged over a 4 x 4 grid."""
    if layer.dim() == 4 and min(layer.shape[2:]) > _GRID:
        layer = F.adaptive_avg_pool2d(layer, _GRID)
    flat = layer.flatten(1)
    if flat.shape[1] <= _MAX_COLUMNS:
        return flat
    generator = torch.Generator().manual_seed(flat.shape[1])
    projection = torch.randn(flat.shape[1], _MAX_COLUMNS, generator=generator) / _MAX_COLUMNS**0.5
    return flat @ projection.to(flat)


def _layer_inputs(network: Network, params: Params, x: Tensor) -> list[Tensor]:
    if isinstance(network, Layered):
        return list(network.trace(params, x, {})[1].values())
    if not isinstance(network, ModuleNet):
        return [x]
    inputs: list[Tensor] = []
    layers = [module for module in network.module.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach())) for module in layers]
    try:
        network(params, x)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs or [x]
