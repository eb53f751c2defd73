"""The backbone against PyTorch's own layers."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from core.errors import UserError
from core.maml.backbone import ConvNet


def layers(net: ConvNet) -> nn.Module:
    """The same network of torch.nn layers, float64."""
    blocks, channels = OrderedDict(), net.shape[2]
    for block in range(net.blocks):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        stride = 2 if net.pooling == "stride" else 1
        parts["conv"] = nn.Conv2d(channels, net.filters, 3, stride=stride, padding=1, bias=False)
        parts["norm"] = nn.BatchNorm2d(net.filters, track_running_stats=False)
        parts["act"] = {"relu": nn.ReLU, "gelu": nn.GELU}[net.activation]()
        if net.pooling == "max":
            parts["pool"] = nn.MaxPool2d(2)
        blocks[str(block)] = nn.Sequential(parts)
        channels = net.filters
    pool = nn.AdaptiveAvgPool2d(1) if net.pooling == "stride" else nn.Identity()
    whole = {"blocks": nn.Sequential(blocks), "pool": pool, "flat": nn.Flatten(), "head": None}
    whole["head"] = nn.Linear(net.features, net.ways)
    return nn.Sequential(OrderedDict(whole)).double()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize(
    ("pooling", "shape", "blocks"),
    [("stride", (28, 28, 1), 4), ("max", (28, 28, 1), 4), ("stride", (7, 9, 3), 2), ("max", (7, 9, 3), 2)],
)
def test_logits_are_those_of_pytorchs_layers(
    activation: str, pooling: str, shape: tuple[int, int, int], blocks: int
) -> None:
    net = ConvNet(3, filters=4, shape=shape, pooling=pooling, blocks=blocks, activation=activation)
    generator = torch.Generator().manual_seed(0)
    params = {
        name: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in net.init(1, torch.float64).items()
    }
    module = layers(net)
    module.load_state_dict(params)
    x = torch.rand(6, shape[2], *shape[:2], generator=generator, dtype=torch.float64)
    have, want = net(params, x), module.train()(x)
    assert have.shape == (6, 3)
    assert (have - want).abs().max() <= 1e-10 * want.abs().max()


def test_fresh_parameters_follow_the_seed() -> None:
    net = ConvNet(5, filters=3, shape=(7, 7, 1), blocks=2)
    one, again, other = net.init(0), net.init(0), net.init(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert all(value.dtype == torch.float32 for value in one.values())
    assert all((one[name] == 0).all() for name in one if name.endswith("bias"))
    double = net.init(0, torch.float64)
    assert all(torch.equal(double[name].float(), one[name]) for name in one)


def test_fresh_convolutions_are_he_normal() -> None:
    params = ConvNet(5, filters=64, blocks=2).init(0)
    assert float(params["blocks.1.conv.weight"].std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ({"pooling": "mean"}, "no pooling 'mean'.*stride or max"),
        ({"activation": "tanh"}, "no activation 'tanh'.*relu or gelu"),
        ({"pooling": "max", "blocks": 3}, "3 blocks of 16 filters do not fit 7 x 7 images"),
        ({"filters": 0}, "0 filters do not fit"),
        ({"blocks": 0}, "0 blocks"),
        ({"ways": 1}, "do not fit"),
    ],
)
def test_a_network_that_cannot_be_is_refused(field: dict[str, object], what: str) -> None:
    with pytest.raises(UserError, match=what):
        ConvNet(**{"ways": 3, "shape": (7, 7, 1), "blocks": 2, **field})
