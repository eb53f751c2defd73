"""Networks below prefixes of wrappers, beside tensors of losses, metrics and other networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from torch import Tensor

from core.checkpoints.factory import allow_factory
from core.checkpoints.foreign import export_state, import_checkpoint, inspect_checkpoint
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import Model, ModelSpec, spec_of
from core.checkpoints.tensor_names import is_learned_rate, is_loss_or_metric, prefixes, without_parts
from core.runtime.errors import UserError
from tests.checkpoints.test_foreign import OWN, Own
from tests.checkpoints.test_foreign import OWN_ASK as OWN_HINTS
from tests.properties import examples

FIELDS = {"ways": 3, "shape": (28, 28, 1), "steps": 2, "rate": 0.1, "delta": 0}
SPEC = spec_of({"backbone": "cnn4", "filters": 4, **FIELDS})
BACKBONES = {
    "cnn4": SPEC,
    "omniglot-cnn": spec_of({"backbone": "omniglot-cnn", "filters": 2, **FIELDS}),
    "omniglot-fc": spec_of({"backbone": "omniglot-fc", "hidden": (3,), **FIELDS}),
    "resnet12": spec_of(
        {"backbone": "resnet12", "hidden": (2, 2, 2, 2), **FIELDS, "shape": (32, 32, 1), "pooling": "none"}
    ),
    "convnet": spec_of({"backbone": "convnet", "filters": 2, **FIELDS}),
    "mlp": spec_of({"backbone": "mlp", "hidden": (), **FIELDS}),
}
HINTS = CheckpointHints(shape=(28, 28, 1), ways=3, steps=2, rate=0.1)


def state(spec: ModelSpec = SPEC, prefix: str = "", seed: int = 0) -> dict[str, Tensor]:
    values = spec.init(seed) if spec.backbone in ("convnet", "mlp") else export_state(Model(spec, spec.init(seed), {}))
    return {f"{prefix}{name}": value for name, value in values.items()}


def own(prefix: str = "", seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {f"{prefix}{name}": value for name, value in Own(4).state_dict().items()}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASKLENS_HOME", str(tmp_path / "home"))
    allow_factory(OWN)
    return tmp_path / "some.pt"


def check_read(content: dict[str, Any], path: Path, spec: ModelSpec = SPEC) -> tuple[str, ...]:
    """Check that the content is read as the parameters of ``spec`` from seed 0, and return the notes."""
    torch.save(content, path)
    contents = inspect_checkpoint(path, CheckpointHints(shape=spec.shape))
    assert contents.faults == ()
    model = import_checkpoint(path, replace(HINTS, shape=spec.shape))
    expected = spec.init(0)
    assert model.spec == spec
    assert all(torch.equal(value, expected[name]) for name, value in model.params.items())
    assert model.params.keys() == expected.keys()
    return contents.notes


def refusal(content: dict[str, Any], path: Path, hints: CheckpointHints = HINTS) -> str:
    torch.save(content, path)
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, hints)
    assert caught.value.fix
    return str(caught.value)


PREFIXES = ["", "model.", "net.", "module.", "_orig_mod.", "model._orig_mod.", "_orig_mod.module.", "model.net.module."]
EXTRA = {
    "criterion.weight": torch.ones(5),
    "loss_fn.pos_weight": torch.ones(3),
    "train_acc.correct": torch.tensor(3),
    "val_metrics.MulticlassAccuracy.tp": torch.zeros(3),
    "class_weights": torch.ones(5),
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_losses_and_metrics_are_left_out(backbone: str, prefix: str, path: Path) -> None:
    """In a LightningModule they are beside the network; without a prefix, beside the modules of the network."""
    spec = BACKBONES[backbone]
    for outer in {"", prefix}:
        extra = {f"{outer}{name}": value for name, value in EXTRA.items()}
        notes = check_read({"state_dict": {**state(spec, prefix), **extra}, "epoch": 3}, path, spec)
        assert all(any(name in note for note in notes) for name in extra)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_losses_beside_a_custom_network_are_left_out(prefix: str, path: Path) -> None:
    content = own(prefix)
    torch.save({**content, **EXTRA}, path)
    model = import_checkpoint(path, OWN_HINTS)
    assert all(torch.equal(value, content[f"{prefix}{name}"]) for name, value in model.params.items())
    notes = model.metadata["origin"]["notes"]
    assert all(any(name in note for note in notes) for name in EXTRA)


def test_other_tensors_outside_the_prefix_are_named(path: Path) -> None:
    extra = {"projection.weight": torch.ones(3, 2), "temperature": torch.tensor(1.0), "n_averaged": torch.tensor(4)}
    notes = check_read({**state(prefix="model."), **extra}, path)
    assert all(any(repr(name) in note for note in notes) for name in extra)
    many = {f"other.{number}.weight": torch.ones(2) for number in range(100)}
    assert any("more" in note for note in check_read({**state(prefix="model."), **many}, path))


@pytest.mark.parametrize("name", ["projection.weight", "rotation_head.bias", "features.0.scale"])
def test_other_tensors_without_a_prefix_are_refused(name: str, path: Path) -> None:
    assert repr(name) in refusal({**state(), name: torch.ones(3)}, path)
    assert repr(f"model.{name}") in refusal({**state(prefix="model."), f"model.{name}": torch.ones(3)}, path)
    assert repr(name) in refusal({**own(), name: torch.ones(3)}, path, OWN_HINTS)


# --- several networks


@pytest.mark.parametrize(
    ("first", "second"), [("model.", "ema_model."), ("student.", "teacher."), ("", "ema."), ("model.module.", "ema.")]
)
def test_several_networks_are_refused(first: str, second: str, path: Path) -> None:
    text = refusal({**state(prefix=first), **state(prefix=second, seed=1)}, path)
    assert repr(second) in text
    assert (repr(first) if first else "without a prefix") in text
    assert f"startswith({second!r})" in text or f"startswith({first!r})" in text
    text = refusal({**own(first), **own(second, seed=1)}, path, OWN_HINTS)
    assert repr(second) in text


def test_the_name_of_the_backbone_chooses_between_networks(path: Path) -> None:
    teacher = state(BACKBONES["omniglot-fc"], "teacher.")
    content = {**state(prefix="student."), **teacher}
    assert "--backbone" in refusal(content, path)
    torch.save(content, path)
    model = import_checkpoint(path, CheckpointHints("cnn4", shape=(28, 28, 1), steps=2, rate=0.1))
    assert model.spec == SPEC
    assert any("'teacher.classifier.weight'" in note for note in model.metadata["origin"]["notes"])


def test_the_shapes_choose_between_custom_networks(path: Path) -> None:
    teacher = {f"teacher.{name}": torch.ones(*value.shape, 2) for name, value in own().items()}
    content = {**own("student."), **teacher}
    torch.save(content, path)
    model = import_checkpoint(path, OWN_HINTS)
    assert torch.equal(model.params["fc.weight"], content["student.fc.weight"])


def test_two_names_of_one_network_are_read_once(path: Path) -> None:
    """``self.net = Net()`` and ``self.maml = MAML(self.net)``."""
    notes = check_read({**state(prefix="net."), **state(prefix="maml.module.")}, path)
    assert any("'net.'" in note and "'maml.module.'" in note for note in notes)
    compiled = {**state(prefix="net."), **state(prefix="compiled._orig_mod."), "criterion.weight": torch.ones(2)}
    notes = check_read(compiled, path)
    assert any("'criterion.weight'" in note and "compiled" not in note for note in notes)
    torch.save({**own("net."), **own("maml.module.")}, path)
    assert import_checkpoint(path, OWN_HINTS).spec.factory == OWN


# --- wrappers inside a network, and MetaSGD


def test_wrapped_parts_of_a_network_are_read(path: Path) -> None:
    for part in ("_orig_mod", "module", "_fsdp_wrapped_module"):
        content = {f"model.{name.replace('features.', f'features.{part}.')}": value for name, value in state().items()}
        check_read(content, path)
        torch.save({name.replace("body.", f"body.{part}."): value for name, value in own().items()}, path)
        assert import_checkpoint(path, OWN_HINTS).spec.factory == OWN


def meta_sgd(prefix: str) -> dict[str, Tensor]:
    model = Model(SPEC.model_copy(update={"algorithm": "meta-sgd"}), SPEC.init(0), {})
    rates = {f"rates.{name}": torch.full_like(value, 0.3) for name, value in model.params.items()}
    learned = export_state(Model(model.spec, {**model.params, **rates}, {}))
    return {f"{prefix}{name}": value for name, value in learned.items()}


@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod.", "learner.module."])
@pytest.mark.parametrize("extra", [{}, {"criterion.weight": torch.ones(3)}, state(prefix="net.")])
def test_learned_rates_below_a_prefix_are_read(prefix: str, extra: dict[str, Tensor], path: Path) -> None:
    torch.save({**meta_sgd(prefix), **extra}, path)
    model = import_checkpoint(path, HINTS)
    assert model.spec.algorithm == "meta-sgd"
    assert all(float(model.params[f"rates.{name}"].mean()) == pytest.approx(0.3) for name in SPEC.init(0))


@pytest.mark.parametrize("name", ["lrs.0", "inner_lr", "learning_rates.conv", "alpha.3", "rates.features", "meta_lr.0"])
def test_other_learned_rates_are_not_left_out(name: str, path: Path) -> None:
    assert repr(name) in refusal({**state(prefix="net."), name: torch.ones(3)}, path)
    assert repr(name) in refusal({**own("net."), name: torch.ones(3)}, path, OWN_HINTS)


def test_learned_transforms_below_a_prefix_are_refused(path: Path) -> None:
    content = {**state(prefix="model.module."), "model.compute_update.0.alpha": torch.ones(4)}
    assert "GBML" in refusal(content, path)


# --- errors that name the tensor


def test_a_missing_last_layer_is_named(path: Path) -> None:
    content = {name: value for name, value in state(prefix="model.").items() if "classifier" not in name}
    text = refusal({**content, "model.fc.weight": torch.ones(3, 4)}, path)
    assert all(name in text for name in ("cnn4", "'model.classifier.weight'", "'model.fc.weight'"))
    assert "'model.classifier.weight'" in refusal(content, path, CheckpointHints("cnn4", steps=1, rate=0.1))


def test_other_names_of_layers_are_named_with_the_expected_ones(path: Path) -> None:
    content = {name.replace("normalize", "bn"): value for name, value in state(prefix="model.").items()}
    text = refusal(content, path)
    assert "'model.features.0.bn.weight'" in text
    assert "'model.features.0.normalize.weight'" in text


def test_a_shape_is_named_with_the_name_in_the_file(path: Path) -> None:
    content = state(prefix="_orig_mod.model.") | {"_orig_mod.model.features.1.conv.bias": torch.zeros(5)}
    text = refusal(content, path)
    assert all(word in text for word in ("'_orig_mod.model.features.1.conv.bias'", "(5,)", "(4,)"))
    content = own("net.") | {"net.body.0.bias": torch.zeros(5)}
    assert all(word in refusal(content, path, OWN_HINTS) for word in ("'net.body.0.bias'", "(5,)", "(3,)"))


def test_a_missing_tensor_is_named_with_its_prefix(path: Path) -> None:
    content = {**state(prefix="model."), **EXTRA}
    del content["model.features.1.conv.bias"]
    assert "'model.features.1.conv.bias'" in refusal(content, path)
    content = {**own("net."), **EXTRA}
    del content["net.body.0.bias"]
    assert "'net.body.0.bias'" in refusal(content, path, OWN_HINTS)


def test_the_last_layer_of_a_larger_network_is_no_linear_model(path: Path) -> None:
    linear = state(BACKBONES["mlp"], "model.")
    check_read(linear, path, BACKBONES["mlp"])
    assert "'encoder.conv.weight'" in refusal({"encoder.conv.weight": torch.ones(4, 1, 3, 3), **linear}, path)


def test_empty_tensors_of_metrics_are_left_out(path: Path) -> None:
    check_read({**state(prefix="model."), "val_acc.values": torch.zeros(0), "other.buffer": torch.zeros(0)}, path)


# --- names


@pytest.mark.parametrize(
    ("name", "is_aside"),
    [
        ("criterion.weight", True),
        ("loss.weight", True),
        ("model.ce_loss.0.weight", True),
        ("loss_fn.pos_weight", True),
        ("val_f1.tp", True),
        ("metrics.0.count", True),
        ("n_averaged", True),
        ("classifier.weight", False),
        ("features.0.conv.weight", False),
        ("lossy_encoder.weight", False),
        ("gloss.conv.weight", False),
        ("crossentropyloss.weight", True),
        ("accumulate.weight", False),
    ],
)
def test_losses_and_metrics_are_recognised_by_name(name: str, is_aside: bool) -> None:
    assert is_loss_or_metric(name) == is_aside


def test_learned_rates_are_recognised_by_name() -> None:
    names = ["lrs.0", "lr", "inner_lr", "task_lr_conv1", "alpha", "learning_rates.0", "compute_update.0"]
    assert all(map(is_learned_rate, names))
    assert not any(map(is_learned_rate, ["features.0.conv.weight", "lrelu.weight", "alphabet.weight", "color.weight"]))


def test_names_that_would_become_equal_stay_unchanged() -> None:
    names = ["a._orig_mod.b", "a.b", "c._orig_mod.d", "_orig_mod"]
    assert without_parts(names) == {
        "a._orig_mod.b": "a._orig_mod.b",
        "a.b": "a.b",
        "c.d": "c._orig_mod.d",
        "_orig_mod": "_orig_mod",
    }


PARTS = st.sampled_from(["a", "b", "module", "_orig_mod", "", "weight"])
NAMES = st.lists(st.lists(PARTS, min_size=1, max_size=5).map(".".join), max_size=8, unique=True)


@given(names=NAMES, wanted=NAMES)
@examples(300)
def test_prefixes_are_followed_by_wanted_names(names: list[str], wanted: list[str]) -> None:
    for prefix in prefixes(names, wanted):
        assert prefix == "" or prefix.endswith(".")
        assert any(f"{prefix}{name}" in names for name in wanted)
    assert ("" in prefixes(names, wanted)) == bool(set(wanted) & set(names))
    assert sorted(without_parts(names).values()) == sorted(names)


def test_names_of_many_parts_are_read(path: Path) -> None:
    deep = "a." * 200_000 + "features.0.conv.weight"
    torch.save({deep: torch.ones(2), f"{'module.' * 200_000}x": torch.ones(2), **state(prefix="model.")}, path)
    assert inspect_checkpoint(path, CheckpointHints(shape=HINTS.shape)).faults == ()


@given(
    extra=st.dictionaries(st.sampled_from([*EXTRA, "", ".", "module.lrs", "lrs.1", "model", "x.module.lrs.0"]), PARTS),
    prefix=st.sampled_from(PREFIXES),
    backbone=st.sampled_from([None, OWN, "cnn4", "mlp"]),
)
@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_names_beside_a_network_are_left_out_or_refused(
    path: Path, extra: dict[str, str], prefix: str, backbone: str | None
) -> None:
    content = own(prefix) if backbone == OWN else state(prefix=prefix)
    torch.save({**content, **{f"{name}{part}": torch.ones(2) for name, part in extra.items()}}, path)
    hints = OWN_HINTS if backbone == OWN else CheckpointHints(backbone=backbone, shape=HINTS.shape)
    contents = inspect_checkpoint(path, hints)
    assert (contents.spec is None) == bool(contents.faults)
