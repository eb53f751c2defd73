"""What the model sees in an image: the inputs of its layers at the meta-parameters, which it shares between all tasks.

Few-shot networks have narrow last layers made to tell a few classes apart; what earlier layers see, taken over a coarse
grid of places, tells many classes apart, and costs nothing more. Means over small shifts of the image leave out what a
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

_BATCH = 256  # images of all classes; the network may normalise by their statistics
_GRID = 4
_LAYERS, _MOST = 4, 1024  # the last ones; columns of each, more are projected at random
_SHIFT = 2 / 28  # of the side
SHIFTS = 9


def image_features(
    network: Network,
    params: Params,
    images: ImageSet,
    positions: np.ndarray,
    on_batch: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """``(n, d)`` float32; every column has mean 0, every layer's columns variances that add up to 1.

    Args:
        positions: ``(n,)`` of the images in the image set; they are read in random batches.
        on_batch: Told the images done so far, each ``SHIFTS`` times.
    """
    order = np.random.default_rng(0).permutation(len(positions))
    like = next(iter(params.values()))
    by = [max(1, round(_SHIFT * side)) for side in images.shape[:2]]
    shifts = list(product((-by[0], 0, by[0]), (-by[1], 0, by[1])))
    parts: list[list[np.ndarray]] = []
    with torch.no_grad():
        for here in np.array_split(order, -(-len(order) // _BATCH)):
            pixels = torch.from_numpy(images.images[positions[here]]).to(like.device)
            x = pixels.permute(0, 3, 1, 2).to(like.dtype) / 255
            seen = [_seen(network, params, x.roll(shift, (2, 3))) for shift in shifts]
            parts.append([torch.stack(layer).mean(0).cpu().numpy() for layer in zip(*seen, strict=True)])
            on_batch(len(here) * SHIFTS)
    back = np.argsort(order)
    return np.concatenate([_scaled(np.concatenate(layer)[back]) for layer in zip(*parts, strict=True)], 1)


def _scaled(layer: np.ndarray) -> np.ndarray:
    layer = layer - layer.mean(0)
    return layer / max(float(np.sqrt((layer**2).mean(0).sum())), 1e-12)


def _seen(network: Network, params: Params, x: Tensor) -> list[Tensor]:
    found = _layer_inputs(network, params, x)[1:] or [x]
    return [_coarse(layer).float() for layer in found[-_LAYERS:]]


def _coarse(seen: Tensor) -> Tensor:
    """``(n, d)`` of what goes into a layer: of maps ``(n, channels, height, width)`` means over a 4 x 4 grid."""
    if seen.dim() == 4 and min(seen.shape[2:]) > _GRID:
        seen = F.adaptive_avg_pool2d(seen, _GRID)
    flat = seen.flatten(1)
    if flat.shape[1] <= _MOST:
        return flat
    generator = torch.Generator().manual_seed(flat.shape[1])
    projection = torch.randn(flat.shape[1], _MOST, generator=generator) / _MOST**0.5
    return flat @ projection.to(flat)


def _layer_inputs(network: Network, params: Params, x: Tensor) -> list[Tensor]:
    """What goes into every convolution and linear layer, in order."""
    if isinstance(network, Layered):
        return list(network.traced(params, x, {})[1].values())
    if not isinstance(network, ModuleNet):
        return [x]
    found: list[Tensor] = []
    layers = [module for module in network.module.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_pre_hook(lambda _, given: found.append(given[0].detach())) for module in layers]
    try:
        network(params, x)
    finally:
        for hook in hooks:
            hook.remove()
    return found or [x]
