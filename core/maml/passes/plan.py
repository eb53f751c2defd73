"""What the written-out derivatives need to know of a convolutional network: which parameters are used where."""

from __future__ import annotations

from dataclasses import dataclass

from core.maml.architectures import CNN4, OmniglotCNN, conv_blocks
from core.maml.backbone import ConvNet, Network
from core.maml.module import ModuleNet


@dataclass(frozen=True)
class Block:
    """A 3 x 3 convolution with padding 1, normalisation by the statistics of the batch, activation, max-pooling.

    A bias of the convolution is cancelled by the normalisation: all its derivatives are exactly 0.

    Attributes:
        conv, scale, shift: Names of the parameters.
        stride: Of the convolution.
        pool: Side of the max-pooling, 1 for none.
    """

    conv: str
    scale: str
    shift: str
    stride: int
    pool: int


@dataclass(frozen=True)
class Plan:
    """A network of such blocks with a linear layer on top.

    Attributes:
        filters: Channels of every block.
        activation: ``relu``, ``gelu`` or ``tanh``.
        mean: The head reads the mean over places; else all of them, channel by channel.
        weight, bias: Names of the head's parameters.
    """

    blocks: tuple[Block, ...]
    filters: int
    activation: str
    mean: bool
    weight: str
    bias: str


def plan_of(network: Network) -> Plan | None:
    """How a network is made of blocks; None where it is made otherwise."""
    if isinstance(network, ConvNet):
        strided = network.pooling == "stride"
        stride, pool = (2, 1) if strided else (1, 2)
        blocks = tuple(
            Block(f"{at}.conv.weight", f"{at}.norm.weight", f"{at}.norm.bias", stride, pool)
            for at in (f"blocks.{number}" for number in range(network.blocks))
        )
        return Plan(blocks, network.filters, network.activation, strided, "head.weight", "head.bias")
    if isinstance(network, ModuleNet) and isinstance(network.module, OmniglotCNN | CNN4):
        module = network.module
        name = {id(value): name for name, value in module.named_parameters()}
        blocks = tuple(
            Block(
                name[id(block.conv.weight)],
                name[id(block.normalize.weight)],
                name[id(block.normalize.bias)],
                block.conv.stride[0],
                block.pool,
            )
            for block in conv_blocks(module.base if isinstance(module, OmniglotCNN) else module.features)
        )
        mean = isinstance(module, OmniglotCNN)
        filters = network.shapes[blocks[0].conv][0]
        return Plan(blocks, filters, "relu", mean, name[id(module.classifier.weight)], name[id(module.classifier.bias)])
    return None
