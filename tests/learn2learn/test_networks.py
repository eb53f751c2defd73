"""The networks of learn2learn and of TaskLens have the same logits and the same meta-gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vmap

from core.checkpoints.model import ModelSpec
from core.maml.module import ModuleNet
from core.maml.objective import Task
from tests.needs import learn2learn

l2l = learn2learn()
models = l2l.vision.models


@dataclass(frozen=True)
class Pair:
    """A network of learn2learn and the specification of its counterpart."""

    l2l_network: Any
    spec: dict[str, Any]


def small_resnet(ways: int, widths: tuple[int, ...], **options: Any) -> nn.Module:
    """A ResNet12 of learn2learn with few filters, which its constructor does not support."""
    net = models.ResNet12(ways, hidden_size=widths[-1], dropblock_dropout=0.0, **options)
    channels = options.get("channels", 3)
    for number, filters in enumerate(widths, 1):
        net.features.inplanes = channels
        setattr(net.features, f"layer{number}", net.features._make_layer(type(net.features.layer1[0]), filters, 2))
        channels = filters
    return net


PAIRS = {
    "omniglot-cnn": Pair(
        lambda: models.OmniglotCNN(3, hidden_size=4, layers=3),
        {"backbone": "omniglot-cnn", "filters": 4, "blocks": 3},
    ),
    "omniglot-fc": Pair(
        lambda: models.OmniglotFC(48, 3, sizes=[6, 5]),
        {"backbone": "omniglot-fc", "hidden": (6, 5), "shape": (8, 6, 1)},
    ),
    "mini-imagenet-cnn": Pair(
        lambda: models.MiniImagenetCNN(3, hidden_size=4, embedding_size=8),
        {"backbone": "mini-imagenet-cnn", "filters": 4, "shape": (34, 16, 3)},
    ),
    "cnn4, two blocks": Pair(
        lambda: models.CNN4(3, hidden_size=4, layers=2, channels=1, embedding_size=4),
        {"backbone": "cnn4", "filters": 4, "blocks": 2, "shape": (17, 20, 1)},
    ),
    "cnn4, strides": Pair(
        lambda: models.CNN4(3, hidden_size=4, layers=3, channels=2, max_pool=False, embedding_size=24),
        {"backbone": "cnn4", "filters": 4, "blocks": 3, "pooling": "stride", "shape": (17, 9, 2)},
    ),
    "resnet12": Pair(
        lambda: small_resnet(3, (3, 4, 4, 5), avg_pool=False, channels=1),
        {"backbone": "resnet12", "hidden": (3, 4, 4, 5), "pooling": "none", "shape": (16, 17, 1)},
    ),
    "resnet12, mean": Pair(
        lambda: small_resnet(3, (2, 3, 3, 4)),
        {"backbone": "resnet12", "hidden": (2, 3, 3, 4), "shape": (84, 80, 3)},
    ),
}
NAMES = [pytest.param(name, marks=pytest.mark.slow if "resnet" in name else ()) for name in PAIRS]
WHOLE = {
    "omniglot-cnn": (lambda: models.OmniglotCNN(5), {"backbone": "omniglot-cnn"}),
    "omniglot-fc": (lambda: models.OmniglotFC(784, 20), {"backbone": "omniglot-fc", "ways": 20}),
    "cnn4": (lambda: models.CNN4(5), {"backbone": "cnn4", "shape": (84, 84, 3)}),
    "resnet12": (lambda: models.ResNet12(5, dropblock_dropout=0.0), {"backbone": "resnet12", "shape": (84, 84, 3)}),
    "resnet12, narrow": (
        lambda: models.ResNet12(5, hidden_size=2048, avg_pool=False, wider=False, channels=1, dropblock_dropout=0.0),
        {"backbone": "resnet12", "hidden": (64, 128, 256, 512), "pooling": "none", "shape": (32, 32, 1)},
    ),
}


def close(actual: Tensor, expected: Tensor, size: float | None = None) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-9 * (expected.abs().max() if size is None else size)


def build(name: str) -> tuple[nn.Module, ModuleNet, ModelSpec]:
    """Return both networks in float64, with perturbed weights, and the specification."""
    torch.manual_seed(3)
    spec = ModelSpec.model_validate({"ways": 3, "steps": 2, "rate": 0.2, **PAIRS[name].spec})
    l2l_network = PAIRS[name].l2l_network().double().train()
    with torch.no_grad():
        for value in l2l_network.parameters():
            value += 0.3 * torch.randn_like(value)
    network = spec.network()
    assert isinstance(network, ModuleNet)
    return l2l_network, network, spec


def task_of(spec: ModelSpec, scale: float = 1.0) -> Task:
    height, width, channels = spec.shape
    # A generator of its own: how often building a network draws from the global one depends on the tests before.
    pixels = torch.Generator().manual_seed(0)
    x = scale * torch.rand(12, channels, height, width, dtype=torch.float64, generator=pixels)
    y, ones = torch.arange(6) % spec.ways, torch.ones(6, dtype=torch.float64)
    return Task(x[:6], y, ones, x[6:], y, ones)


@pytest.mark.parametrize("name", PAIRS)
def test_same_logits_and_meta_gradient(name: str) -> None:
    l2l_network, network, spec = build(name)
    params = {key: value.detach().clone() for key, value in l2l_network.named_parameters()}
    assert list(params) == list(network.shapes)
    task = task_of(spec)
    close(network(params, task.xs), l2l_network(task.xs).detach())
    maml = l2l.algorithms.MAML(l2l_network, lr=spec.rate)
    learner = maml.clone()
    for _ in range(spec.steps):
        learner.adapt(F.cross_entropy(learner(task.xs), task.ys))
    F.cross_entropy(learner(task.xq), task.yq).backward()
    expected = {key: value.grad for key, value in l2l_network.named_parameters()}
    actual = grad(spec.bilevel().task_loss)(params, task)
    size = max(float(value.abs().max()) for value in expected.values())
    assert size > 1e-3
    for key in expected:
        close(actual[key], expected[key], size)


@pytest.mark.parametrize("name", [name for name in PAIRS if "resnet" not in name])  # those are too small and deep
def test_batch_normalisation_removes_the_scale_of_the_pixels(name: str) -> None:
    """mini-ImageNet in learn2learn has pixels up to 255 by default; in TaskLens they are up to 1."""
    l2l_network, _, spec = build(name)
    task = task_of(spec)
    learner = l2l.algorithms.MAML(l2l_network, lr=spec.rate).clone()
    for _ in range(spec.steps):
        learner.adapt(F.cross_entropy(learner(255 * task.xs), task.ys))
    params = {key: value.detach().clone() for key, value in l2l_network.named_parameters()}
    actual, expected = spec.bilevel().query_logits(params, task), learner(255 * task.xq).detach()
    assert (actual - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_several_tasks_under_vmap_equal_a_loop(name: str) -> None:
    l2l_network, _, spec = build(name)
    params = {key: value.detach().clone() for key, value in l2l_network.named_parameters()}
    tasks = [task_of(spec, scale) for scale in (1.0, 0.6)]
    model = spec.bilevel()
    stacked = Task(*(torch.stack(parts) for parts in zip(*tasks, strict=True)))
    batched = vmap(grad(model.task_loss), in_dims=(None, 0))(params, stacked)
    for position, task in enumerate(tasks):
        one = grad(model.task_loss)(params, task)
        size = max(float(value.abs().max()) for value in one.values())
        for key in one:
            close(batched[key][position], one[key], size)


@pytest.mark.parametrize("name", WHOLE)
def test_full_sizes_have_the_same_parameters_in_the_same_order(name: str) -> None:
    make, fields = WHOLE[name]
    l2l_network = {key: tuple(value.shape) for key, value in make().named_parameters()}
    network = ModelSpec.model_validate({"ways": 5, **fields}).network()
    assert list(network.shapes.items()) == list(l2l_network.items())
    assert network.head == "classifier"


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_full_sizes_have_the_same_logits(name: str) -> None:
    make, fields = WHOLE[name]
    torch.manual_seed(1)
    l2l_network, spec = make().double().train(), ModelSpec.model_validate({"ways": 5, **fields})
    x = torch.rand(2, spec.shape[2], *spec.shape[:2], dtype=torch.float64)
    params = {key: value.detach() for key, value in l2l_network.named_parameters()}
    close(spec.network()(params, x), l2l_network(x).detach())


@pytest.mark.parametrize("name", WHOLE)
def test_initial_weights_have_the_distribution_of_learn2learn(name: str) -> None:
    make, fields = WHOLE[name]
    torch.manual_seed(0)
    l2l_network, ours = dict(make().named_parameters()), ModelSpec.model_validate({"ways": 5, **fields}).init(0)
    for key, value in l2l_network.items():
        expected, actual = value.detach(), ours[key]
        assert float(actual.mean()) == pytest.approx(
            float(expected.mean()), abs=5 * float(expected.std()) / expected.numel() ** 0.5
        )
        if expected.numel() > 500:
            assert float(actual.std()) == pytest.approx(float(expected.std()), rel=0.1)
