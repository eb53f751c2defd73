"""Checkpoints of other programs: identification by names and shapes, refusals, and the recorded origin."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from core.checkpoints.factory import allow_factory
from core.checkpoints.foreign import export_state, import_checkpoint, inspect_checkpoint, write_state
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import Model, ModelSpec, load_model, save_model, spec_of
from core.checkpoints.tensor_file import sha256
from core.runtime.errors import UserError
from tests.properties import examples

SPEC = spec_of({"backbone": "cnn4", "ways": 3, "filters": 4, "shape": (28, 28, 1), "steps": 2, "rate": 0.1, "delta": 0})
ASK = CheckpointHints(shape=(28, 28, 1), ways=3, steps=2, rate=0.1)


def state(spec: ModelSpec = SPEC, seed: int = 0) -> dict[str, Tensor]:
    """Return the state dict that PyTorch saves, with running statistics and the further names of shared tensors."""
    return dict(export_state(Model(spec, spec.init(seed), {})))


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.pt"


# --- identification


@pytest.mark.parametrize(
    "fields",
    [
        {"backbone": "omniglot-cnn", "ways": 4, "filters": 3, "blocks": 2},
        {"backbone": "omniglot-fc", "ways": 4, "hidden": (6, 5)},
        {"backbone": "cnn4", "ways": 4, "filters": 3, "shape": (28, 28, 1)},
        {"backbone": "cnn4", "ways": 4, "filters": 3, "shape": (84, 84, 3)},
        {"backbone": "cnn4", "ways": 4, "filters": 3, "pooling": "stride", "shape": (84, 84, 1)},
        {"backbone": "resnet12", "ways": 4, "hidden": (2, 3, 4, 5), "shape": (84, 84, 3)},
        {"backbone": "resnet12", "ways": 4, "hidden": (2, 3, 4, 5), "shape": (32, 32, 1), "pooling": "none"},
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "model.net.", "_orig_mod.module.module."])
def test_the_network_is_identified_by_names_and_shapes(fields: dict[str, Any], prefix: str, path: Path) -> None:
    spec = spec_of(fields | {"delta": 0})
    saved({f"{prefix}{name}": value for name, value in state(spec).items()}, path)
    contents = inspect_checkpoint(path)
    assert contents.faults == ()
    assert contents.spec == spec
    assert any(f"names are those of {spec.backbone}" in note for note in contents.notes)
    assert any("inner learning rate" in note for note in contents.notes)
    model = import_checkpoint(path, CheckpointHints(steps=1, rate=0.4))
    assert model.spec == spec
    assert all(torch.equal(model.params[name], value) for name, value in spec.init(0).items())


@pytest.mark.parametrize("hidden", [(), (7,), tuple(range(13, 1, -1))])
def test_tasklens_tensors_are_matched_without_model_json(hidden: tuple[int, ...], tmp_path: Path) -> None:
    """safetensors files list their tensors in alphabetical order: layer 10 before layer 2."""
    spec = spec_of({"backbone": "mlp", "ways": 3, "hidden": hidden, "shape": (8, 6, 1), "shrink": 2, "delta": 0})
    save_file(spec.init(0), tmp_path / "some.safetensors")
    model = import_checkpoint(tmp_path / "some.safetensors", CheckpointHints(shape=(8, 6, 1), steps=1, rate=0.4))
    assert model.spec == spec
    contents = inspect_checkpoint(
        tmp_path / "some.safetensors", CheckpointHints(shape=(8, 6, 1), more={"activation": "tanh"})
    )
    assert contents.spec == spec.model_copy(update={"activation": "tanh"})
    spec = spec_of({"ways": 3, "filters": 2, "shape": (9, 8, 2), "blocks": 2, "algorithm": "meta-sgd", "delta": 0})
    save_file(spec.init(0), tmp_path / "some.safetensors")
    model = import_checkpoint(tmp_path / "some.safetensors", CheckpointHints(shape=(9, 8, 2), steps=1))
    assert model.spec == spec
    assert list(model.params) == list(spec.init(0))


def test_an_image_size_that_cannot_be_inferred_is_required(path: Path) -> None:
    saved(state(spec_of({"backbone": "cnn4", "ways": 3, "filters": 2, "shape": (40, 30, 1)})), path)
    contents = inspect_checkpoint(path)
    assert contents.spec is None
    assert "image size" in contents.faults[0]
    assert "--shape HEIGHT,WIDTH,CHANNELS" in contents.faults[0]
    assert inspect_checkpoint(path, CheckpointHints(shape=(40, 30, 1))).faults == ()


@pytest.mark.parametrize("backbone", ["cnn4", "convnet"])
def test_an_assumed_pooling_is_noted_only_if_several_match(backbone: str, path: Path) -> None:
    """With four blocks, 16 x 16 leaves one position for both poolings; 28 x 28 fits only one pooling of cnn4."""
    for side, pooling, guessed in (
        (16, "max", True),
        (28, "max", backbone == "convnet"),
        (28, "stride", backbone == "convnet"),
    ):
        fields = {"backbone": backbone, "ways": 3, "filters": 2, "shape": (side, side, 1), "pooling": pooling}
        tensors = spec_of(fields).init(0)
        saved(tensors, path)
        contents = inspect_checkpoint(path, CheckpointHints(shape=(side, side, 1)))
        assert contents.faults == ()
        assert any("pooling" in note for note in contents.notes) == guessed
        if not guessed:
            assert contents.spec is not None
            assert contents.spec.pooling == pooling


def test_an_assumed_pooling_is_noted_if_another_image_size_would_match(path: Path) -> None:
    saved(state(spec_of({"backbone": "resnet12", "ways": 3, "hidden": (2, 2, 2, 2), "shape": (84, 84, 1)})), path)
    assert any("pooling" in note and "mean" in note for note in inspect_checkpoint(path).notes)
    sized = inspect_checkpoint(path, CheckpointHints(shape=(84, 84, 1)))
    assert not any("pooling" in note for note in sized.notes)


def test_fields_that_the_network_does_not_use_are_refused(path: Path, tmp_path: Path) -> None:
    saved(state(), path)
    with pytest.raises(UserError, match=r"cnn4 .*--activation"):
        import_checkpoint(path, replace(ASK, more={"activation": "tanh", "delta": 1.0}))
    save_model(Model(SPEC, SPEC.init(0), {}), tmp_path / "model")
    with pytest.raises(UserError, match="--pooling"):
        import_checkpoint(tmp_path / "model", CheckpointHints(more={"pooling": "stride"}))


def test_the_description_does_not_show_one_rate_for_learned_rates() -> None:
    spec = SPEC.model_copy(update={"algorithm": "meta-sgd"})
    assert "meta-sgd, 2 inner steps at learned rates" in spec.description


def test_a_model_folder_is_imported_with_its_specification(tmp_path: Path) -> None:
    original = Model(SPEC, SPEC.init(0), {"command": "by hand", "report": {"tasks": 1}})
    save_model(original, tmp_path / "model")
    for at in (tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        assert inspect_checkpoint(at).spec == SPEC
        assert import_checkpoint(at, CheckpointHints()).hash == original.hash
    other = import_checkpoint(tmp_path / "model", CheckpointHints(steps=5, algorithm="anil"))
    assert other.spec == SPEC.model_copy(update={"steps": 5, "algorithm": "anil"})
    assert other.metadata == {"command": "by hand"}
    with pytest.raises(UserError, match=r"learned rates.*--algorithm meta-sgd"):
        import_checkpoint(tmp_path / "model", CheckpointHints(algorithm="meta-sgd"))
    with pytest.raises(UserError, match="ways 3, not 5"):
        import_checkpoint(tmp_path / "model", CheckpointHints(ways=5))
    with pytest.raises(UserError, match="steps: "):
        import_checkpoint(tmp_path / "model", CheckpointHints(steps=0))


def test_the_origin_is_recorded(path: Path, tmp_path: Path) -> None:
    saved({"state_dict": state()}, path)
    model = import_checkpoint(path, ASK)
    origin = model.metadata["origin"]
    assert origin["path"] == str(path)
    assert origin["sha256"] == sha256(path)
    assert "state_dict" in origin["kind"]
    assert any(re.search(r"Running statistics .*\(tensors: 12\)", note) for note in origin["notes"])
    save_model(model, tmp_path / "model")
    assert load_model(tmp_path / "model").hash == Model(SPEC, SPEC.init(0), {}).hash


# --- missing information


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"steps": None}, "--inner-steps"),
        ({"rate": None}, "--inner-rate"),
        ({"algorithm": "meta-sgd"}, r"no learned inner rates \(lrs\.0"),
        ({"algorithm": "reptile"}, "algorithm: "),
        ({"backbone": "resnet"}, "'resnet'.*mini-imagenet-cnn, or package.module:factory"),
        ({"backbone": "omniglot-cnn"}, r"not a checkpoint of omniglot-cnn.*'base\.0\.conv\.weight'"),
        ({"backbone": "convnet"}, "not a checkpoint of convnet"),
        ({"rate": 0.0}, "rate: "),
        ({"shape": (84, 84, 3)}, r"'features\.0\.conv\.weight' .*\(4, 1, 3, 3\).* cnn4 .*\(4, 3, 3, 3\)"),
        (
            {"shape": (84, 84, 1)},
            r"'classifier\.weight' .*\(3, 4\).* cnn4 .*\(3, 100\).*image size",
        ),
        ({"ways": 5}, "3-way tasks, .*5-way.*Draw 3-way tasks"),
    ],
)
def test_missing_or_unsuitable_hints_are_refused(change: dict[str, Any], what: str, path: Path) -> None:
    saved(state(), path)
    with pytest.raises(UserError, match=what):
        import_checkpoint(path, replace(ASK, **change))


def test_imaml_needs_no_steps(path: Path) -> None:
    saved(state(), path)
    model = import_checkpoint(path, CheckpointHints(algorithm="imaml", shape=(28, 28, 1), more={"proximity": 3.0}))
    assert (model.spec.algorithm, model.spec.proximity) == ("imaml", 3.0)


# --- mismatches


def damaged(**change: Tensor | None) -> dict[str, Tensor]:
    return {name: value for name, value in (state() | change).items() if value is not None}


CHANGES: list[tuple[dict[str, Tensor | None], str]] = [
    ({"features.1.conv.bias": None}, r"'features\.1\.conv\.bias' of shape \(4,\).* cnn4 .*missing"),
    ({"features.1.conv.scale": torch.zeros(4)}, r"'features\.1\.conv\.scale' .*not part of cnn4"),
    ({"features.1.conv.bias": torch.zeros(5)}, r"'features\.1\.conv\.bias' .*\(5,\).* cnn4 .*\(4,\)"),
    ({"features.1.conv.bias": torch.full((4,), torch.nan)}, r"'features\.1\.conv\.bias' .*NaN"),
    ({"features.1.conv.bias": torch.full((4,), torch.inf)}, "NaN or infinity"),
    ({"features.1.conv.bias": torch.zeros(4, dtype=torch.int64)}, r"'features\.1\.conv\.bias' is int64"),
    ({"features.1.conv.bias": torch.zeros(4, dtype=torch.complex64)}, r"is (complex64|C64)"),
    ({"classifier.weight": torch.zeros(4)}, r"'classifier\.weight' .*\(4,\)"),
    ({"features.0.conv.weight": torch.zeros(4, 1)}, r"number of axes: .*\(4, 1\)"),
    ({"classifier.weight": torch.zeros(10**12, 0)}, r"'classifier\.weight' of shape .*empty"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES)
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_a_mismatched_tensor_is_named(change: dict[str, Tensor | None], what: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / f"some.{form}"
    content = damaged(**change)
    saved(content, path) if form == "pt" else save_file(content, path)
    with pytest.raises(UserError, match=what) as raised:
        import_checkpoint(path, ASK)
    assert str(path) in raised.value.what
    contents = inspect_checkpoint(path, CheckpointHints(shape=ASK.shape, ways=3))
    assert contents.spec is None
    assert contents.faults == (str(raised.value),)
    assert len(contents.tensors) == len(content)


def test_two_names_of_one_tensor_must_have_equal_values(path: Path) -> None:
    spec = spec_of({"backbone": "omniglot-cnn", "ways": 3, "filters": 2})
    content = state(spec)
    saved(content | {"features.1.0.conv.bias": torch.ones(2)}, path)
    with pytest.raises(UserError, match=r"'base\.0\.conv\.bias' and 'features\.1\.0\.conv\.bias'"):
        import_checkpoint(path, CheckpointHints(steps=1, rate=0.1))
    saved({name: value for name, value in content.items() if not name.startswith("features")}, path)
    assert import_checkpoint(path, CheckpointHints(steps=1, rate=0.1)).spec.backbone == "omniglot-cnn"


def test_tensors_of_an_unknown_network_are_refused(path: Path) -> None:
    saved(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).state_dict(), path)
    contents = inspect_checkpoint(path)
    assert "--backbone package.module:factory" in contents.faults[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_without_loss(dtype: torch.dtype, path: Path) -> None:
    """float32 represents every half-precision number; model folders are never written in half precision."""
    content = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state().items()}
    saved(content, path)
    model = import_checkpoint(path, ASK)
    assert all(value.dtype == torch.float32 for value in model.params.values())
    assert all(torch.equal(value, content[name].float()) for name, value in model.params.items())
    assert any("half precision" in note for note in model.metadata["origin"]["notes"])
    assert any("half precision" in note for note in inspect_checkpoint(path, CheckpointHints(shape=ASK.shape)).notes)


def test_double_precision_is_kept(path: Path) -> None:
    saved({name: value.double() for name, value in state().items()}, path)
    assert all(value.dtype == torch.float64 for value in import_checkpoint(path, ASK).params.values())


# --- learned rates


def meta_sgd() -> dict[str, Tensor]:
    original = Model(SPEC.model_copy(update={"algorithm": "meta-sgd"}), SPEC.init(0), {})
    rates = {f"rates.{name}": torch.rand(value.shape) for name, value in original.params.items()}
    return export_state(replace(original, params=original.params | rates))


def test_learned_rates_are_matched_by_the_order_of_parameters(path: Path) -> None:
    content = meta_sgd()
    assert {name.split(".")[0] for name in content} == {"module", "lrs"}
    saved(content, path)
    model = import_checkpoint(path, replace(ASK, rate=None))
    assert model.spec.algorithm == "meta-sgd"
    for position, name in enumerate(SPEC.init(0)):
        assert torch.equal(model.params[f"rates.{name}"], content[f"lrs.{position}"])
    assert all(torch.equal(value, content[name]) for name, value in export_state(model).items())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lrs.3": None}, "17 .* 18 parameters"),
        ({"lrs.2": torch.zeros(5)}, r"'lrs\.2' .*\(5,\).* 'features\.0\.conv\.weight'"),
        ({"lrs.2": torch.full((4, 1, 3, 3), torch.nan)}, r"'lrs\.2' .*NaN"),
        ({"lrs.x": torch.zeros(3)}, r"'lrs\.x'"),
    ],
)
def test_mismatched_rates_are_named(change: dict[str, Tensor | None], what: str, path: Path) -> None:
    saved({name: value for name, value in (meta_sgd() | change).items() if value is not None}, path)
    with pytest.raises(UserError, match=what):
        import_checkpoint(path, replace(ASK, rate=None))


def test_learned_rates_are_not_ignored(path: Path) -> None:
    saved(meta_sgd(), path)
    with pytest.raises(UserError, match=r"learned inner rates.*not maml"):
        import_checkpoint(path, replace(ASK, algorithm="maml"))


def test_learned_transforms_are_refused(path: Path) -> None:
    content = {f"module.{name}": value for name, value in state().items()}
    saved(content | {"compute_update.transforms_modules.0.alpha": torch.ones(4)}, path)
    with pytest.raises(UserError, match=r"GBML.*compute_update"):
        import_checkpoint(path, ASK)


# --- custom networks


class Own(nn.Module):
    def __init__(self, ways: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
        self.register_buffer("grid", torch.linspace(0, 1, 4))
        self.fc = nn.Linear(3 * 9, ways)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x * self.grid[-1]))


OWN = f"{__name__}:Own"
OWN_ASK = CheckpointHints(backbone=OWN, shape=(7, 7, 1), ways=4, steps=1, rate=0.2)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKLENS_HOME", str(tmp_path / "home"))
    allow_factory(OWN)


@pytest.mark.usefixtures("own")
def test_a_state_dict_of_a_custom_network_round_trips(path: Path, tmp_path: Path) -> None:
    module = Own(4)
    with torch.no_grad():
        module(torch.rand(6, 1, 7, 7))
    saved({f"module.{name}": value for name, value in module.state_dict().items()}, path)
    model = import_checkpoint(path, replace(OWN_ASK, algorithm="anil"))
    assert model.spec.factory == OWN
    assert model.spec.code
    assert model.spec.network().head == "fc"
    x = torch.rand(6, 1, 7, 7)
    assert torch.allclose(model.spec.network()(model.params, x), module.train()(x), atol=1e-6)
    save_model(model, tmp_path / "model")
    written = write_state(load_model(tmp_path / "model"), tmp_path / "model")
    assert written is not None
    assert written.name == "state_dict.pt"
    back = Own(4)
    back.load_state_dict(torch.load(written, weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), module.parameters(), strict=True))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            {"fc.weight": torch.zeros(9, 27), "fc.bias": torch.zeros(9)},
            "9-way.*4-way",
        ),
        (
            {"body.0.weight": torch.zeros(3, 3, 3, 3)},
            r"'body\.0\.weight' .*test_foreign:Own .*\(3, 1, 3, 3\)",
        ),
        ({"body.0.bias": None}, r"'body\.0\.bias' of shape \(3,\).*missing"),
        ({"head.weight": torch.zeros(4)}, r"'head\.weight' .*not part of .*test_foreign:Own"),
        ({"grid": torch.zeros(4)}, "buffer 'grid'"),
    ],
)
def test_a_mismatched_state_dict_of_a_custom_network_is_refused(
    change: dict[str, Tensor | None], what: str, path: Path
) -> None:
    content: dict[str, Tensor | None] = {**Own(4).state_dict(), **change}
    saved({name: value for name, value in content.items() if value is not None}, path)
    with pytest.raises(UserError, match=what):
        import_checkpoint(path, OWN_ASK)


@pytest.mark.usefixtures("own")
def test_a_custom_network_needs_ways_and_shape(path: Path) -> None:
    saved(Own(4).state_dict(), path)
    with pytest.raises(UserError, match="--shape HEIGHT,WIDTH,CHANNELS and --ways"):
        import_checkpoint(path, replace(OWN_ASK, ways=None))


def test_tasklens_networks_are_not_exported(tmp_path: Path) -> None:
    spec = spec_of({"ways": 3, "filters": 2})
    model = Model(spec, spec.init(0), {})
    assert write_state(model, tmp_path) is None
    with pytest.raises(UserError, match="convnet"):
        export_state(model)


# --- random content

NAMES = sorted(
    {
        name
        for backbone in ("cnn4", "omniglot-cnn", "omniglot-fc")
        for name in state(spec_of({"backbone": backbone, "ways": 3, "filters": 2, "hidden": (3,)}))
    }
    | set(spec_of({"ways": 3, "filters": 2}).init(0))
    | set(spec_of({"ways": 3, "backbone": "mlp"}).init(0))
    | {
        "lrs.0",
        "lrs.1",
        "module.lrs",
        "rates.head.weight",
        "compute_update.a",
        "features.layer1.0.conv1.weight",
        "",
        ".",
    }
)
SHAPES = st.lists(st.integers(0, 3), max_size=5)


@given(
    content=st.dictionaries(st.sampled_from(NAMES), SHAPES, min_size=1, max_size=12),
    whole=st.sampled_from([None, "cnn4", "omniglot-cnn", "omniglot-fc", "convnet", "mlp"]),
    prefix=st.sampled_from(["", "module.", "a.b."]),
    backbone=st.sampled_from([None, "cnn4", "omniglot-fc", "mlp", "convnet", "resnet12"]),
    shape=st.sampled_from([None, (28, 28, 1), (1, 1, 1)]),
)
@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_names_and_shapes_are_either_matched_or_refused(
    tmp_path: Path,
    content: dict[str, list[int]],
    whole: str | None,
    prefix: str,
    backbone: str | None,
    shape: tuple[int, int, int] | None,
) -> None:
    spec = spec_of({"ways": 3, "filters": 2, "hidden": (3,), "backbone": whole}) if whole else None
    tensors = {} if spec is None else spec.init(0)
    tensors |= {name: torch.zeros(size) for name, size in content.items()}
    save_file({f"{prefix}{name}": value for name, value in tensors.items()}, tmp_path / "some.safetensors")
    with suppress(UserError):  # only where it cannot be read
        contents = inspect_checkpoint(tmp_path / "some.safetensors", CheckpointHints(backbone=backbone, shape=shape))
        assert (contents.spec is None) == bool(contents.faults)
