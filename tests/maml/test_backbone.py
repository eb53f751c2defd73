"""Backbones compared with PyTorch layers."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from core.maml.backbone import MLP, ConvNet, Layered, Params
from core.runtime.errors import UserError

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
NETWORKS: list[ConvNet | MLP] = [
    ConvNet(3, filters=4, shape=(7, 9, 3), blocks=2),
    ConvNet(3, filters=4, shape=(7, 9, 3), pooling="max", blocks=2, activation="relu"),
    MLP(3, hidden=(5, 4), shape=(4, 6, 2), shrink=2, activation="tanh"),
    MLP(3, hidden=(), shape=(4, 6, 2)),
]


def layers(net: ConvNet | MLP) -> nn.Module:
    """Return the same network built from torch.nn layers, in float64."""
    if isinstance(net, MLP):
        widths = [net.shape[2] * (net.shape[0] // net.shrink) * (net.shape[1] // net.shrink), *net.hidden]
        linear = OrderedDict((str(i), nn.Linear(*widths[i : i + 2])) for i in range(len(net.hidden)))
        modules = OrderedDict(shrink=nn.AvgPool2d(net.shrink), flat=nn.Flatten(), layers=nn.ModuleDict(linear))
        module = nn.ModuleDict(OrderedDict(modules, head=nn.Linear(widths[-1], net.ways))).double()
        order = [module["shrink"], module["flat"]]
        for part in linear.values():
            order += [part, ACTIVATIONS[net.activation]()]
        module.forward = nn.Sequential(*order, module["head"]).forward
        return module
    blocks, channels = OrderedDict(), net.shape[2]
    for block in range(net.blocks):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        stride = 2 if net.pooling == "stride" else 1
        parts["conv"] = nn.Conv2d(channels, net.filters, 3, stride=stride, padding=1, bias=False)
        parts["norm"] = nn.BatchNorm2d(net.filters, track_running_stats=False)
        parts["act"] = ACTIVATIONS[net.activation]()
        if net.pooling != "stride":
            parts["pool"] = nn.MaxPool2d(2) if net.pooling == "max" else nn.AvgPool2d(2)
        blocks[str(block)] = nn.Sequential(parts)
        channels = net.filters
    pool = nn.AdaptiveAvgPool2d(1) if net.pooling == "stride" else nn.Identity()
    modules = {"blocks": nn.Sequential(blocks), "pool": pool, "flat": nn.Flatten(), "head": None}
    modules["head"] = nn.Linear(net.shapes["head.weight"][1], net.ways)
    return nn.Sequential(OrderedDict(modules)).double()


def random_inputs(net: ConvNet | MLP, rows: int = 6) -> tuple[Params, Tensor]:
    """Return perturbed initial parameters and images, in float64."""
    generator = torch.Generator().manual_seed(0)
    params = {
        name: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in net.init(1, torch.float64).items()
    }
    return params, torch.rand(rows, net.shape[2], *net.shape[:2], generator=generator, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize(
    ("pooling", "shape", "blocks"),
    [
        ("stride", (28, 28, 1), 4),
        ("max", (28, 28, 1), 4),
        ("stride", (7, 9, 3), 2),
        ("max", (7, 9, 3), 2),
        ("mean", (7, 9, 3), 2),
    ],
)
def test_logits_equal_those_of_pytorch_layers(
    activation: str, pooling: str, shape: tuple[int, int, int], blocks: int
) -> None:
    net = ConvNet(3, filters=4, shape=shape, pooling=pooling, blocks=blocks, activation=activation)
    params, x = random_inputs(net)
    module = layers(net)
    module.load_state_dict(params)
    assert net(params, x).shape == (6, 3)
    close(net(params, x), module.train()(x))


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize(("hidden", "shrink"), [((), 1), ((5,), 2), ((5, 4), 1)])
def test_the_mlp_equals_pytorch_linear_layers(activation: str, hidden: tuple[int, ...], shrink: int) -> None:
    net = MLP(3, hidden, (4, 6, 2), shrink, activation)
    params, x = random_inputs(net)
    module = layers(net)
    module.load_state_dict(params)
    assert net(params, x).shape == (6, 3)
    close(net(params, x), module(x))


@pytest.mark.parametrize("net", NETWORKS, ids=str)
def test_every_layer_exposes_its_input_and_accepts_a_shift_of_its_output(net: ConvNet | MLP) -> None:
    """Gradients by the shifts equal those of plain autograd by the outputs of PyTorch layers."""
    assert isinstance(net, Layered)
    params, x = random_inputs(net)
    module = layers(net)
    module.load_state_dict(params)
    inputs, outputs = {}, {}
    for layer in net.layers:
        part = module.get_submodule(layer.name)

        def keep(_: nn.Module, given: tuple[Tensor, ...], out: Tensor, name: str = layer.name) -> None:
            inputs[name], outputs[name] = given[0], out

        part.register_forward_hook(keep)
        if isinstance(part, nn.Conv2d):
            assert ((layer.stride,) * 2, (layer.padding,) * 2) == (part.stride, part.padding)
    logits = module.train()(x)
    parameters = dict(module.named_parameters())
    assert all((layer.bias is None) == (f"{layer.name}.bias" not in parameters) for layer in net.layers)
    expected = torch.autograd.grad(logits.logsumexp(1).sum(), list(outputs.values()))
    zeros = {name: torch.zeros_like(out) for name, out in outputs.items()}
    actual = grad(lambda shifts: net.trace(params, x, shifts)[0].logsumexp(1).sum())(zeros)
    traced, ours = net.trace(params, x, {})
    assert torch.equal(traced, net(params, x))
    assert list(ours) == list(outputs) == [layer.name for layer in net.layers]
    for (name, out), gradient in zip(outputs.items(), expected, strict=True):
        close(ours[name], inputs[name])
        close(actual[name], gradient)
        gradient_at = grad(lambda shift, name=name: net.trace(params, x, {name: shift})[0].logsumexp(1).sum())
        by_one_number = gradient_at(torch.zeros((), dtype=torch.float64))
        assert abs(by_one_number - gradient.sum()) <= 1e-10 * max(1, out.abs().sum())


@pytest.mark.parametrize("net", NETWORKS, ids=str)
def test_several_parameter_sets_under_vmap_equal_a_loop(net: ConvNet | MLP) -> None:
    """Values and forward-over-reverse products under vmap."""
    sets = [net.init(seed, torch.float64) for seed in range(3)]
    stacked = {name: torch.stack([one[name] for one in sets]) for name in sets[0]}
    x = torch.stack([random_inputs(net)[1] * (1 + k) / 3 for k in range(3)])

    def product(params: Params, images: Tensor) -> tuple[Tensor, Params]:
        return jvp(grad(lambda p: net(p, images).logsumexp(1).sum()), (params,), (params,))[1]

    logits, products = vmap(net)(stacked, x), vmap(product)(stacked, x)
    for k, one in enumerate(sets):
        close(logits[k], net(one, x[k]))
        expected = product(one, x[k])
        size = max(float(value.abs().max()) for value in expected.values())
        assert all((products[name][k] - expected[name]).abs().max() <= 1e-10 * size for name in one)


def test_shapes_and_order_of_the_mlps_parameters() -> None:
    params = MLP(5, (8, 6), (4, 6, 2), shrink=2).init(0)
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "layers.0.weight": (8, 12),
        "layers.0.bias": (8,),
        "layers.1.weight": (6, 8),
        "layers.1.bias": (6,),
        "head.weight": (5, 6),
        "head.bias": (5,),
    }
    assert list(MLP(5, ()).init(0)) == ["head.weight", "head.bias"]


def test_initial_hidden_layers_are_he_normal() -> None:
    params = MLP(64, (300,)).init(0)
    assert float(params["layers.0.weight"].std()) == pytest.approx((2 / 784) ** 0.5, rel=0.02)
    assert float(params["head.weight"].std()) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("net", [ConvNet(5, filters=3, shape=(7, 7, 1), blocks=2), MLP(5, (3,), (7, 7, 1))], ids=str)
def test_initial_parameters_depend_on_the_seed(net: ConvNet | MLP) -> None:
    one, repeated, other = net.init(0), net.init(0), net.init(1)
    assert all(torch.equal(one[name], repeated[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert all(value.dtype == torch.float32 for value in one.values())
    assert all((one[name] == 0).all() for name in one if name.endswith("bias"))
    double = net.init(0, torch.float64)
    assert all(torch.equal(double[name].float(), one[name]) for name in one)


def test_initial_convolutions_are_he_normal() -> None:
    params = ConvNet(5, filters=64, blocks=2).init(0)
    assert float(params["blocks.1.conv.weight"].std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ({"pooling": "none"}, "pooling 'none'.*stride, max or mean"),
        ({"activation": "sine"}, "activation 'sine'.*relu or gelu or tanh"),
        ({"pooling": "max", "blocks": 3}, "3 blocks.*7 x 7"),
        ({"filters": 0}, "0 filters"),
        ({"blocks": 0}, "0 blocks"),
        ({"ways": 1}, "1 ways"),
    ],
)
def test_an_invalid_convnet_is_refused(field: dict[str, object], what: str) -> None:
    with pytest.raises(UserError, match=what):
        ConvNet(**{"ways": 3, "shape": (7, 7, 1), "blocks": 2, **field})


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ({"shrink": 3}, "shrink 3 .*8 x 6"),
        ({"shrink": 0}, "shrink 0 "),
        ({"hidden": (4, 0)}, r"\(4, 0\)"),
        ({"activation": "sine"}, "activation 'sine'"),
        ({"ways": 1}, "ways, not 1"),
    ],
)
def test_an_invalid_mlp_is_refused(field: dict[str, object], what: str) -> None:
    with pytest.raises(UserError, match=what):
        MLP(**{"ways": 3, "shape": (8, 6, 1), **field})
