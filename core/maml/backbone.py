"""Define backbones as pure functions of (parameters, images), with parameters in one flat dictionary of tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from core.runtime.errors import UserError

Params = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Network = Callable[[Params, Tensor], Tensor]

HEAD = "head"
BATCH_NORM_EPSILON = 1e-5
POOLINGS = ("stride", "max", "mean")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh}


def head_of(network: Network | None) -> str:
    """Return the name of the layer that outputs the logits, which ANIL adapts; ``head`` if the network names none."""
    return getattr(network, "head", HEAD)


@dataclass(frozen=True)
class Layer:
    """A linear or convolution layer that is described by the names of its parameters.

    Attributes:
        name: Key of its input and its shift in :meth:`Layered.trace`.
        weight: Name of its weight, with four axes for a convolution and two for a linear layer.
        stride, padding: Of a convolution, equal for height and width.
    """

    name: str
    weight: str
    bias: str | None
    stride: int = 1
    padding: int = 0


class Layered(ABC):
    """A network that exposes the input of each of its linear and convolution layers."""

    head: ClassVar[str] = HEAD

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """Return every linear and convolution layer in order."""

    @property
    @abstractmethod
    def shapes(self) -> Shapes:
        """Return the shape of every parameter in order."""

    @abstractmethod
    def trace(self, params: Params, x: Tensor, shifts: Params) -> tuple[Tensor, Params]:
        """Return the logits and the input of every layer of :attr:`layers`, by layer name.

        ``shifts[name]``, broadcastable to the output of layer ``name``, is added to that output before normalisation
        and activation, so the gradient with respect to the shift is the gradient with respect to the output. Layers
        without a shift are unchanged.
        """

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Return the logits ``(n, ways)`` of images ``(n, channels, height, width)`` in [0, 1]."""
        return self.trace(params, x, {})[0]

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Params:
        """Return new parameters on the CPU.

        Weights are He-normal, those of the head normal with standard deviation 0.1. Scales are 1 and biases are 0.
        """
        generator = torch.Generator().manual_seed(seed)
        params: Params = {}
        for name, shape in self.shapes.items():
            if name.endswith(".bias"):
                params[name] = torch.zeros(shape, dtype=dtype)
            elif name.endswith(".norm.weight"):
                params[name] = torch.ones(shape, dtype=dtype)
            else:
                std = 0.1 if name == "head.weight" else (2 / prod(shape[1:])) ** 0.5
                params[name] = (torch.randn(shape, generator=generator, dtype=torch.float64) * std).to(dtype)
        return params


@dataclass(frozen=True)
class ConvNet(Layered):
    """A convolutional network of, by default, four blocks from the MAML literature (Finn et al. 2017, section 5.2).

    Each block is a 3 x 3 convolution, batch normalisation with the statistics of the current batch (no running
    statistics, as is usual in MAML; it would cancel a bias, so the convolution has none), an activation, and a halving
    of height and width: by stride 2 (``pooling="stride"``, used by Finn et al. for Omniglot) or by 2 x 2 max-pooling
    (``"max"``, used for mini-ImageNet). With ``"stride"`` the head reads the mean over the remaining positions, with
    ``"max"`` all of them.

    The activation in the literature is ``"relu"``. The default is ``"gelu"`` because with ReLU the inner gradient, and
    therefore the adapted loss, jumps wherever a unit crosses its kink. The objective then has no stationary point to
    converge to, but influence functions are derivatives at a stationary point (measured in docs/method.md).

    ``shape`` is the height, width and channels of the images.
    """

    ways: int
    filters: int = 16
    shape: tuple[int, int, int] = (28, 28, 1)
    pooling: str = "stride"
    blocks: int = 4
    activation: str = "gelu"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise UserError(f"Unknown pooling {self.pooling!r}.", "Use stride, max or mean.")
        _check_activation(self.activation)
        smallest = min(self.ways - 1, self.filters, self.blocks, *(self._side(side) for side in self.shape[:2]))
        if smallest < 1:
            size = f"{self.shape[0]} x {self.shape[1]}"
            raise UserError(
                f"{self.ways} ways, {self.filters} filters and {self.blocks} blocks do not fit {size} images.",
                "Use at least 2 ways, at least 1 filter, and fewer blocks for small images.",
            )

    def _side(self, side: int) -> int:
        for _ in range(self.blocks):
            side = ceil(side / 2) if self.pooling == "stride" else side // 2
        return side

    @property
    def _stride(self) -> int:
        return 2 if self.pooling == "stride" else 1

    @property
    def shapes(self) -> Shapes:
        """Return the shape of every parameter in order."""
        out: Shapes = {}
        channels = self.shape[2]
        for block in range(self.blocks):
            out[f"blocks.{block}.conv.weight"] = (self.filters, channels, 3, 3)
            out[f"blocks.{block}.norm.weight"] = out[f"blocks.{block}.norm.bias"] = (self.filters,)
            channels = self.filters
        positions = 1 if self.pooling == "stride" else self._side(self.shape[0]) * self._side(self.shape[1])
        return out | {"head.weight": (self.ways, self.filters * positions), "head.bias": (self.ways,)}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the convolutions and the head in order."""
        blocks = [f"blocks.{block}.conv" for block in range(self.blocks)]
        convolutions = [Layer(name, f"{name}.weight", None, self._stride, padding=1) for name in blocks]
        return (*convolutions, Layer("head", "head.weight", "head.bias"))

    def trace(self, params: Params, x: Tensor, shifts: Params) -> tuple[Tensor, Params]:
        """Return the logits and the layer inputs; see :meth:`Layered.trace`."""
        inputs: Params = {}
        for block in range(self.blocks):
            name = f"blocks.{block}.conv"
            inputs[name] = x
            x = _add_shift(F.conv2d(x, params[f"{name}.weight"], stride=self._stride, padding=1), name, shifts)
            x = batch_norm(x, params[f"blocks.{block}.norm.weight"], params[f"blocks.{block}.norm.bias"])
            x = ACTIVATIONS[self.activation](x)
            if self.pooling != "stride":
                x = (F.max_pool2d if self.pooling == "max" else F.avg_pool2d)(x, 2)
        inputs["head"] = x = x.mean((2, 3)) if self.pooling == "stride" else x.flatten(1)
        return _add_shift(F.linear(x, params["head.weight"], params["head.bias"]), "head", shifts), inputs


@dataclass(frozen=True)
class MLP(Layered):
    """A multilayer perceptron, or a multinomial logistic regression if it has no hidden layers.

    The images of a set do not interact, because there is no batch normalisation.

    Attributes:
        hidden: Widths of the hidden layers in order; ``()`` is the linear model.
        shape: Height, width and channels of the images.
        shrink: Side, in pixels, of the squares over which images are averaged first.
    """

    ways: int
    hidden: tuple[int, ...] = (64,)
    shape: tuple[int, int, int] = (28, 28, 1)
    shrink: int = 1
    activation: str = "gelu"

    def __post_init__(self) -> None:
        _check_activation(self.activation)
        if self.ways < 2:
            raise UserError(f"A classifier needs at least 2 ways, not {self.ways}.", "Use 2 or more.")
        if min(self.hidden, default=1) < 1:
            raise UserError(f"The hidden layer widths {self.hidden} are not all positive.", "Use widths of 1 or more.")
        if self.shrink < 1 or any(side % self.shrink for side in self.shape[:2]):
            size = f"{self.shape[0]} x {self.shape[1]}"
            raise UserError(
                f"The shrink {self.shrink} does not divide {size} images.", "Use a common divisor of both sides."
            )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the hidden layers and the head in order."""
        names = [*(f"layers.{index}" for index in range(len(self.hidden))), "head"]
        return tuple(Layer(name, f"{name}.weight", f"{name}.bias") for name in names)

    @property
    def shapes(self) -> Shapes:
        """Return the shape of every parameter in order."""
        out: Shapes = {}
        width = prod(self.shape) // self.shrink**2
        for layer, units in zip(self.layers, (*self.hidden, self.ways), strict=True):
            out |= {f"{layer.name}.weight": (units, width), f"{layer.name}.bias": (units,)}
            width = units
        return out

    def trace(self, params: Params, x: Tensor, shifts: Params) -> tuple[Tensor, Params]:
        """Return the logits and the layer inputs; see :meth:`Layered.trace`."""
        x = x.unflatten(3, (-1, self.shrink)).unflatten(2, (-1, self.shrink)).mean((3, 5)).flatten(1)
        inputs: Params = {}
        for index in range(len(self.hidden)):
            name = f"layers.{index}"
            inputs[name] = x
            x = _add_shift(F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"]), name, shifts)
            x = ACTIVATIONS[self.activation](x)
        inputs["head"] = x
        return _add_shift(F.linear(x, params["head.weight"], params["head.bias"]), "head", shifts), inputs


def _check_activation(activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise UserError(f"Unknown activation {activation!r}.", f"Use {' or '.join(ACTIVATIONS)}.")


def _add_shift(x: Tensor, name: str, shifts: Params) -> Tensor:
    return x + shifts[name] if name in shifts else x


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float = BATCH_NORM_EPSILON) -> Tensor:
    """Normalise ``x`` ``(n, channels, ...)`` with the statistics of the batch; scale and shift are ``(channels,)``.

    The operation is written out because the fused kernel has no fast forward-mode derivative of its backward pass.
    """
    axes = (0, *range(2, x.dim()))
    centred = x - x.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True)
    scale = torch.rsqrt(variance + epsilon)
    per_channel = (-1, *(1 for _ in axes[1:]))
    out = centred * (scale if weight is None else scale * weight.view(per_channel))
    return out if bias is None else out + bias.view(per_channel)
