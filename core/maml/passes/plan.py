"""Describe the structure of convolutional networks for the explicit derivatives."""

from __future__ import annotations

from dataclasses import dataclass

from core.maml.architectures import CNN4, OmniglotCNN, conv_blocks
from core.maml.backbone import ConvNet, Network
from core.maml.module import ModuleNet


@dataclass(frozen=True)
class ConvBlockPlan:
    """A block of a 3 x 3 convolution with padding 1, batch normalisation, activation and pooling.

    The normalisation cancels a bias of the convolution, so all derivatives with respect to it are exactly 0. ``conv``,
    ``scale`` and ``shift`` are the names of the parameters; ``pool`` is the side of the pooling window, 1 for none,
    over which the maximum is taken, or with ``mean`` the mean.
    """

    conv: str
    scale: str
    shift: str
    stride: int
    pool: int
    mean: bool = False


@dataclass(frozen=True)
class ConvPlan:
    """A network of such blocks with a linear head, whose parameters are ``weight`` and ``bias``.

    The head reads the mean over positions (``mean``), or else all positions, channel by channel.
    """

    blocks: tuple[ConvBlockPlan, ...]
    filters: int
    activation: str
    mean: bool
    weight: str
    bias: str


def plan_of(network: Network) -> ConvPlan | None:
    """Return the plan of a network, or None if it does not consist of such blocks."""
    if isinstance(network, ConvNet):
        is_strided = network.pooling == "stride"
        stride, pool = (2, 1) if is_strided else (1, 2)
        blocks = tuple(
            ConvBlockPlan(
                f"{prefix}.conv.weight",
                f"{prefix}.norm.weight",
                f"{prefix}.norm.bias",
                stride,
                pool,
                mean=network.pooling == "mean",
            )
            for prefix in (f"blocks.{number}" for number in range(network.blocks))
        )
        return ConvPlan(blocks, network.filters, network.activation, is_strided, "head.weight", "head.bias")
    if isinstance(network, ModuleNet) and isinstance(network.module, OmniglotCNN | CNN4):
        module = network.module
        name = {id(value): name for name, value in module.named_parameters()}
        blocks = tuple(
            ConvBlockPlan(
                name[id(block.conv.weight)],
                name[id(block.normalize.weight)],
                name[id(block.normalize.bias)],
                block.conv.stride[0],
                block.pool,
            )
            for block in conv_blocks(module.base if isinstance(module, OmniglotCNN) else module.features)
        )
        weight, bias = name[id(module.classifier.weight)], name[id(module.classifier.bias)]
        filters = network.shapes[blocks[0].conv][0]
        return ConvPlan(blocks, filters, "relu", isinstance(module, OmniglotCNN), weight, bias)
    return None
