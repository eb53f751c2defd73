"""Reimplement the networks of learn2learn 0.2.0 with the same parameter names, shapes, computation and initialisation.

State dicts are interchangeable with those of learn2learn, which need not be installed.
:class:`core.maml.module.ModuleNet` turns the modules into pure functions. ResNet12 in learn2learn uses DropBlock with
rate 0.1. Random masks would make the objective a different function at every call, without a meaningful derivative, so
this implementation omits DropBlock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from core.runtime.errors import UserError

RESNET12_WIDTHS = (64, 160, 320, 640)
"""Default widths of learn2learn (``wider=True``, Lee et al. 2019); ``wider=False`` is (64, 128, 256, 512)."""
RESNET12_POOL = 5
OMNIGLOT_SHAPE = (28, 28, 1)


class ConvBlock(nn.Module):
    """A block of a 3 x 3 convolution, batch normalisation and ReLU, downsampled by max-pooling or by stride.

    The normalisation is registered before the convolution, as in learn2learn, because the Meta-SGD rates follow the
    order of registration.
    """

    def __init__(self, channels: int, filters: int, *, factor: int, max_pool: bool) -> None:
        super().__init__()
        self.pool = factor if max_pool else 1
        self.normalize = nn.BatchNorm2d(filters)
        self.conv = nn.Conv2d(channels, filters, 3, stride=1 if max_pool else factor, padding=1)
        nn.init.uniform_(self.normalize.weight)
        _init_xavier(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps ``(n, filters, height, width)`` of ``x`` ``(n, channels, height, width)``."""
        x = F.relu(self.normalize(self.conv(x)))
        return F.max_pool2d(x, self.pool) if self.pool > 1 else x

    def side(self, side: int) -> int:
        """Return the output side length, in pixels, for an input of ``side`` pixels."""
        return side // self.pool if self.pool > 1 else (side - 1) // self.conv.stride[0] + 1


def _make_conv_blocks(channels: int, filters: int, blocks: int, *, factor: int, max_pool: bool) -> nn.Sequential:
    inputs = [channels] + [filters] * (blocks - 1)
    return nn.Sequential(*(ConvBlock(number, filters, factor=factor, max_pool=max_pool) for number in inputs))


def conv_blocks(stack: nn.Sequential) -> list[ConvBlock]:
    """Return the convolution blocks of a stack in order."""
    return [block for block in stack if isinstance(block, ConvBlock)]


class OmniglotCNN(nn.Module):
    """A network of four stride-2 convolutions and a spatial mean (Finn et al. 2017, for Omniglot).

    learn2learn registers the convolutions twice, as ``base`` and as ``features.1``, so a state dict contains both.
    """

    def __init__(self, ways: int, shape: tuple[int, int, int], filters: int, blocks: int) -> None:
        super().__init__()
        if shape != OMNIGLOT_SHAPE:
            raise UserError(f"OmniglotCNN takes 28 x 28 x 1 images, not {_format_shape(shape)}.", "Use cnn4.")
        self.base = _make_conv_blocks(1, filters, blocks, factor=2, max_pool=False)
        self.features = nn.Sequential(nn.Identity(), self.base)
        self.classifier = nn.Linear(filters, ways)
        _init_normal(self.classifier.weight, 1.0)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(n, ways)`` of images ``(n, 1, 28, 28)``."""
        return self.classifier(self.features(x).mean((2, 3)))


class CNN4(nn.Module):
    """A network of four convolutions with 2 x 2 max-pooling (Ravi and Larochelle 2017), also named MiniImagenetCNN.

    With fewer blocks, each block pools more (``max_pool_factor`` in learn2learn, ``4 // blocks``), so four is the
    maximum.
    """

    def __init__(self, ways: int, shape: tuple[int, int, int], filters: int, blocks: int, pooling: str) -> None:
        super().__init__()
        if pooling not in ("max", "stride"):
            raise UserError(f"CNN4 does not support pooling {pooling!r}.", "Use max or stride.")
        if blocks > 4:
            raise UserError(f"CNN4 cannot have {blocks} blocks.", "Use 1 to 4.")
        factor = 2 * (4 // blocks)
        self.features = _make_conv_blocks(shape[2], filters, blocks, factor=factor, max_pool=pooling == "max")
        sides = list(shape[:2])
        for block in conv_blocks(self.features):
            sides = [block.side(side) for side in sides]
        self.classifier = nn.Linear(filters * _position_count(sides, f"CNN4 of {blocks} blocks", shape), ways)
        _init_xavier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(n, ways)`` of images ``(n, channels, height, width)``."""
        return self.classifier(self.features(x).flatten(1))


class LinearBlock(nn.Module):
    """A block of a linear layer, batch normalisation and ReLU."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm1d(units, momentum=0.999, eps=1e-3, track_running_stats=False)
        self.linear = nn.Linear(inputs, units)
        _init_truncated_normal(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features ``(n, units)`` of ``x`` ``(n, inputs)``."""
        return F.relu(self.normalize(self.linear(x)))


class OmniglotFC(nn.Module):
    """A fully connected network, by default with hidden layers of (256, 128, 64, 64) units (Santoro et al. 2016)."""

    def __init__(self, ways: int, shape: tuple[int, int, int], hidden: tuple[int, ...]) -> None:
        super().__init__()
        if not hidden:
            raise UserError("OmniglotFC needs at least one hidden layer.", "Use mlp for a linear model.")
        widths = [shape[0] * shape[1] * shape[2], *hidden]
        blocks = (LinearBlock(*pair) for pair in pairwise(widths))
        self.features = nn.Sequential(nn.Flatten(), nn.Sequential(*blocks))
        self.classifier = nn.Linear(hidden[-1], ways)
        _init_truncated_normal(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(n, ways)`` of images ``(n, channels, height, width)``."""
        return self.classifier(self.features(x))


class ResidualBlock(nn.Module):
    """A block of three 3 x 3 convolutions with a 1 x 1 convolution as shortcut, followed by 2 x 2 max-pooling."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _make_conv(channels, filters), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = _make_conv(filters, filters), nn.BatchNorm2d(filters)
        self.conv3, self.bn3 = _make_conv(filters, filters), nn.BatchNorm2d(filters)
        self.downsample = nn.Sequential(_make_conv(channels, filters, side=1), nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps ``(n, filters, height // 2, width // 2)`` of ``x`` ``(n, channels, height, width)``."""
        out = F.leaky_relu(self.bn1(self.conv1(x)), 0.1)
        out = F.leaky_relu(self.bn2(self.conv2(out)), 0.1)
        out = self.bn3(self.conv3(out)) + self.downsample(x)
        return F.max_pool2d(F.leaky_relu(out, 0.1), 2)


class ResNet12(nn.Module):
    """A network of four residual blocks (Lee et al. 2019; Oreshkin et al. 2018) with optional 5 x 5 mean pooling.

    ``pooling="mean"`` is ``avg_pool=True`` in learn2learn, designed for images of 84 x 84; ``"none"`` is
    ``avg_pool=False``.
    """

    def __init__(self, ways: int, shape: tuple[int, int, int], hidden: tuple[int, ...], pooling: str) -> None:
        super().__init__()
        if len(hidden) != 4:
            raise UserError(f"ResNet12 needs four widths, not {len(hidden)}.", "For example: 64,160,320,640.")
        if pooling not in ("mean", "none"):
            raise UserError(f"ResNet12 does not support pooling {pooling!r}.", "Use mean or none.")
        inputs = (shape[2], *hidden[:-1])
        layers = {
            f"layer{number}": nn.Sequential(ResidualBlock(*pair))
            for number, pair in enumerate(zip(inputs, hidden, strict=True), 1)
        }
        self.features = nn.ModuleDict(layers)
        self.mean = pooling == "mean"
        lost = RESNET12_POOL - 1 if self.mean else 0
        sides = [side // 16 - lost for side in shape[:2]]
        positions = _position_count(sides, f"ResNet12 with pooling {pooling}", shape)
        self.classifier = nn.Linear(hidden[-1] * positions, ways)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(n, ways)`` of images ``(n, channels, height, width)``."""
        for layer in self.features.values():
            x = layer(x)
        x = F.avg_pool2d(x, RESNET12_POOL, stride=1) if self.mean else x
        return self.classifier(x.flatten(1))


def _make_conv(channels: int, filters: int, side: int = 3) -> nn.Conv2d:
    conv = nn.Conv2d(channels, filters, side, padding=side // 2, bias=False)
    _init_normal(conv.weight, (2 / (filters * side**2)) ** 0.5)  # He et al. 2015, fan-out mode
    return conv


def _init_normal(weight: Tensor, std: float) -> None:
    if not weight.is_meta:  # on meta tensors PyTorch imports its compiler, which takes over a second
        nn.init.normal_(weight, std=std)


def _init_xavier(layer: nn.Conv2d | nn.Linear) -> None:
    assert layer.bias is not None
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


def _init_truncated_normal(layer: nn.Linear) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
    nn.init.zeros_(layer.bias)


def _position_count(sides: list[int], network: str, shape: tuple[int, int, int]) -> int:
    if min(sides) < 1:
        size = _format_shape(shape)
        raise UserError(f"{size} images are too small for {network}.", "Use larger images or another network.")
    return sides[0] * sides[1]


def _format_shape(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


@dataclass(frozen=True)
class Architecture:
    """A network: how to build it from ways, shape and the fields in ``defaults``, and its name in learn2learn.

    ``defaults`` are the fields of a model specification that it uses, with the defaults of learn2learn.
    """

    make: Callable[..., nn.Module]
    title: str
    defaults: Mapping[str, Any]


ARCHITECTURES: dict[str, Architecture] = {
    "omniglot-cnn": Architecture(OmniglotCNN, "OmniglotCNN", {"filters": 64, "blocks": 4}),
    "omniglot-fc": Architecture(OmniglotFC, "OmniglotFC", {"hidden": (256, 128, 64, 64)}),
    "cnn4": Architecture(CNN4, "CNN4", {"filters": 64, "blocks": 4, "pooling": "max"}),
    "resnet12": Architecture(ResNet12, "ResNet12", {"hidden": RESNET12_WIDTHS, "pooling": "mean"}),
}
BACKBONE_ALIASES = {"mini-imagenet-cnn": "cnn4"}
"""Alternative names; learn2learn 0.2.0 defines ``MiniImagenetCNN = CNN4``."""
