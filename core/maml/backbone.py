"""Backbones: pure functions of (parameters, images). Parameters are one flat dictionary of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import UserError

Params = dict[str, Tensor]
Network = Callable[[Params, Tensor], Tensor]

BATCH_NORM_EPSILON = 1e-5
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


@dataclass(frozen=True)
class ConvNet:
    """The four-block convolutional network of the MAML literature (Finn et al. 2017, section 5.2).

    Each block is a 3 x 3 convolution, batch normalisation with the statistics of the batch at hand (no running
    state, as is the custom in MAML), an activation, and a halving of the sides: by stride 2 (``pooling="stride"``,
    their choice for Omniglot) or by 2 x 2 max-pooling (``"max"``, their choice for mini-ImageNet). With ``"stride"``
    the head reads the mean over the remaining places, with ``"max"`` all of them.

    The activation of the literature is ``"relu"``. The default is ``"gelu"``: with ReLU the inner gradient, and so
    the adapted loss, jumps wherever a unit crosses its kink, and the objective then has no stationary point to
    train to, which is where influence functions are derivatives (measured in docs/method.md).

    Attributes:
        ways: Classes a task, the width of the head.
        filters: Channels of every block.
        shape: Height, width and channels of the images.
    """

    ways: int
    filters: int = 16
    shape: tuple[int, int, int] = (28, 28, 1)
    pooling: str = "stride"
    blocks: int = 4
    activation: str = "gelu"

    def __post_init__(self) -> None:
        if self.pooling not in ("stride", "max"):
            raise UserError(f"There is no pooling {self.pooling!r}.", "Use stride or max.")
        if self.activation not in _ACTIVATIONS:
            raise UserError(f"There is no activation {self.activation!r}.", f"Use {' or '.join(_ACTIVATIONS)}.")
        smallest = min(self.ways - 1, self.filters, self.blocks, *(self._side(side) for side in self.shape[:2]))
        if smallest < 1:
            size = f"{self.shape[0]} x {self.shape[1]}"
            raise UserError(f"{self.blocks} blocks of {self.filters} filters do not fit {size} images.", "Use fewer.")

    def _side(self, side: int) -> int:
        for _ in range(self.blocks):
            side = ceil(side / 2) if self.pooling == "stride" else side // 2
        return side

    @property
    def features(self) -> int:
        places = 1 if self.pooling == "stride" else self._side(self.shape[0]) * self._side(self.shape[1])
        return self.filters * places

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Params:
        """Fresh parameters on the CPU: He-normal convolutions, a head of standard deviation 0.1, zero biases."""
        generator = torch.Generator().manual_seed(seed)
        params: Params = {}
        channels = self.shape[2]
        for block in range(self.blocks):
            weight = torch.randn(self.filters, channels, 3, 3, generator=generator, dtype=torch.float64)
            params[f"blocks.{block}.conv.weight"] = weight * (2 / (9 * channels)) ** 0.5
            params[f"blocks.{block}.norm.weight"] = torch.ones(self.filters)
            params[f"blocks.{block}.norm.bias"] = torch.zeros(self.filters)
            channels = self.filters
        params["head.weight"] = torch.randn(self.ways, self.features, generator=generator, dtype=torch.float64) * 0.1
        params["head.bias"] = torch.zeros(self.ways)
        return {name: value.to(dtype) for name, value in params.items()}

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Logits ``(n, ways)`` of images ``(n, channels, height, width)`` in [0, 1].

        A convolution bias would be cancelled by the normalisation that follows, so there is none.
        """
        stride = 2 if self.pooling == "stride" else 1
        for block in range(self.blocks):
            x = F.conv2d(x, params[f"blocks.{block}.conv.weight"], stride=stride, padding=1)
            x = _batch_norm(x, params[f"blocks.{block}.norm.weight"], params[f"blocks.{block}.norm.bias"])
            x = _ACTIVATIONS[self.activation](x)
            if self.pooling == "max":
                x = F.max_pool2d(x, 2)
        x = x.mean((2, 3)) if self.pooling == "stride" else x.flatten(1)
        return F.linear(x, params["head.weight"], params["head.bias"])


def _batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Batch normalisation spelt out: the fused kernel has no fast forward derivative of its backward."""
    centred = x - x.mean((0, 2, 3), keepdim=True)
    variance = (centred * centred).mean((0, 2, 3), keepdim=True)
    scale = torch.rsqrt(variance + BATCH_NORM_EPSILON) * weight[:, None, None]
    return centred * scale + bias[:, None, None]
