"""The networks of learn2learn: names, shapes, limits. tests/learn2learn compares them with learn2learn itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.func import grad, vmap

from core.checkpoints.model import Model, ModelSpec, load_model, save_model, spec_of
from core.maml.adaptation import Implicit
from core.maml.module import ModuleNet
from core.maml.objective import Bilevel, Task
from core.runtime.errors import UserError
from tests.test_rules import PRODUCT, imports

TINY: dict[str, dict[str, Any]] = {
    "omniglot-cnn": {"filters": 2, "shape": (28, 28, 1)},
    "omniglot-fc": {"hidden": (3, 2), "shape": (4, 5, 1)},
    "mini-imagenet-cnn": {"filters": 2, "shape": (16, 18, 3)},
    "cnn4": {"filters": 2, "blocks": 2, "shape": (17, 16, 1)},
    "resnet12": {"hidden": (2, 3, 2, 3), "pooling": "none", "shape": (16, 16, 1)},
}


def spec(backbone: str, **more: Any) -> ModelSpec:
    return spec_of({"ways": 3, "backbone": backbone, **TINY[backbone], **more})


def task_of(described: ModelSpec) -> Task:
    generator = torch.Generator().manual_seed(0)
    height, width, channels = described.shape
    x = torch.rand(12, channels, height, width, generator=generator, dtype=torch.float64)
    y, ones = torch.arange(6) % 3, torch.ones(6, dtype=torch.float64)
    return Task(x[:6], y, ones, x[6:], y, ones)


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        (
            "omniglot-cnn",
            ["base.0.normalize.weight", "base.0.normalize.bias", "base.0.conv.weight", "base.0.conv.bias"],
        ),
        ("omniglot-fc", ["features.1.0.normalize.weight", "features.1.0.normalize.bias", "features.1.0.linear.weight"]),
        ("cnn4", ["features.0.normalize.weight", "features.0.normalize.bias", "features.0.conv.weight"]),
        ("resnet12", ["features.layer1.0.conv1.weight", "features.layer1.0.bn1.weight"]),
    ],
)
def test_parameter_names_are_those_of_learn2learn(backbone: str, names: list[str]) -> None:
    actual = list(spec(backbone).network().shapes)
    assert actual[: len(names)] == names
    assert actual[-2:] == ["classifier.weight", "classifier.bias"]


def test_the_convolutions_of_omniglot_cnn_have_two_names() -> None:
    network = spec("omniglot-cnn").network()
    assert isinstance(network, ModuleNet)
    assert network.aliases["features.1.0.conv.weight"] == "base.0.conv.weight"
    assert {name for name in network.state_dict(network.init(0)) if name.startswith("features.1.3.")} == {
        f"features.1.3.{name}"
        for name in (
            "normalize.weight",
            "normalize.bias",
            "normalize.running_mean",
            "normalize.running_var",
            "normalize.num_batches_tracked",
            "conv.weight",
            "conv.bias",
        )
    }


def test_default_sizes_are_those_of_learn2learn() -> None:
    full = {name: spec_of({"ways": 5, "backbone": name, "shape": (84, 84, 3)}) for name in ("cnn4", "resnet12")}
    assert full["cnn4"].network().shapes["classifier.weight"] == (5, 1600)
    assert full["resnet12"].network().shapes["classifier.weight"] == (5, 640)
    assert spec_of({"ways": 5, "backbone": "omniglot-cnn"}).filters == 64
    assert spec_of({"ways": 5, "backbone": "omniglot-fc"}).hidden == (256, 128, 64, 64)
    assert spec_of({"ways": 5, "backbone": "mini-imagenet-cnn"}).backbone == "cnn4"
    assert spec_of({"ways": 5}).filters == 16
    assert spec_of({"ways": 5, "backbone": "convnet"}).pooling == "stride"


def test_hashes_of_older_models_are_unchanged() -> None:
    described = ModelSpec(ways=3, filters=2, shape=(7, 7, 1), blocks=2, steps=2, rate=0.3, delta=0.5)
    dumped = described.model_dump(exclude_defaults=True)
    assert dumped == {
        "ways": 3,
        "filters": 2,
        "shape": (7, 7, 1),
        "blocks": 2,
        "steps": 2,
        "rate": 0.3,
        "delta": 0.5,
    }


@pytest.mark.parametrize(
    ("backbone", "fields", "what"),
    [
        ("omniglot-cnn", {"shape": (32, 32, 1)}, "28 x 28 x 1.*32 x 32 x 1"),
        ("cnn4", {"blocks": 5}, "CNN4.*5 blocks"),
        ("cnn4", {"pooling": "mean"}, "pooling 'mean'.*max or stride"),
        ("cnn4", {"blocks": 4, "shape": (8, 15, 1)}, "8 x 15 x 1.*CNN4 of 4 blocks"),
        ("resnet12", {"hidden": (2, 2)}, "four widths.*2"),
        ("resnet12", {"pooling": "max"}, "pooling 'max'"),
        ("resnet12", {"pooling": "mean"}, "16 x 16 x 1.*ResNet12 with pooling mean"),
        ("omniglot-fc", {"hidden": ()}, "OmniglotFC.*hidden layer"),
    ],
)
def test_invalid_sizes_are_refused(backbone: str, fields: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        spec(backbone, **fields).network()


@pytest.mark.parametrize("backbone", TINY)
def test_anil_adapts_only_the_classifier(backbone: str) -> None:
    described = spec(backbone, algorithm="anil")
    params = described.init(0, torch.float64)
    model, task = described.bilevel(), task_of(described)
    adapted = model.adapt(params, task)
    changed = {name for name in params if not torch.equal(params[name], adapted[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("backbone", TINY)
def test_every_algorithm_round_trips_through_disk(backbone: str, tmp_path: Any) -> None:
    described = spec(backbone, algorithm="meta-sgd")
    assert f"learn2learn's {described.network().name.split('(')[0]}" in described.description
    params = described.init(1)
    assert {name: tuple(value.shape) for name, value in params.items()} == described.shapes()
    output = Model(described, params, {})
    save_model(output, tmp_path)
    assert load_model(tmp_path).hash == output.hash
    assert all(torch.equal(params[name], value.float()) for name, value in described.init(1, torch.float64).items())


@pytest.mark.parametrize("backbone", ["omniglot-fc", "cnn4"])
def test_ekfac_refuses_networks_without_layer_inputs(backbone: str) -> None:
    described = spec(backbone)
    model = Bilevel(described.network(), Implicit(5.0, 1e-3, "ekfac"), 0.0)
    stacked = Task(*(part[None] for part in task_of(described)))
    with pytest.raises(UserError, match="EK-FAC"):
        vmap(grad(model.task_loss), in_dims=(None, 0))(described.init(0, torch.float64), stacked)


def test_a_huge_specification_is_refused_without_allocating_memory(tmp_path: Any) -> None:
    """Names and shapes are compared before parameters are allocated, 8 TB in this case."""
    described = spec("cnn4")
    save_model(Model(described, described.init(0), {}), tmp_path)
    huge = described.model_copy(update={"filters": 500_000})
    text = (tmp_path / "model.json").read_text().replace('"filters": 2', '"filters": 500000')
    (tmp_path / "model.json").write_text(text)
    assert huge.shapes()["features.1.conv.weight"] == (500_000, 500_000, 3, 3)
    with pytest.raises(UserError, match=r"shape .*model\.json"):
        load_model(tmp_path)


def test_learn2learn_is_not_needed() -> None:
    assert [path for path in PRODUCT for name in imports(path) if name.split(".")[0] == "learn2learn"] == []
