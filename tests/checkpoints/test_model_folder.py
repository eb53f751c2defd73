"""Models on disk round-trip, and a wrong file is refused by name."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoints.model import Model, ModelSpec, load_model, save_model
from core.runtime.errors import UserError

SPEC = ModelSpec(ways=3, filters=2, shape=(7, 7, 1), blocks=2, steps=2, rate=0.3, delta=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(Model(SPEC, SPEC.init(0), {"command": "by hand"}), tmp_path)
    return tmp_path


def tensors() -> dict[str, torch.Tensor]:
    return dict(SPEC.init(0))


def test_a_model_round_trips_through_disk(folder: Path) -> None:
    original = Model(SPEC, SPEC.init(0), {"command": "by hand"})
    read = load_model(folder)
    assert read.spec == SPEC
    assert read.metadata == original.metadata
    assert list(read.params) == list(original.params)
    assert all(torch.equal(read.params[name], original.params[name]) for name in original.params)
    assert read.hash == original.hash
    assert read.size == sum(value.numel() for value in original.params.values())
    assert read.spec.bilevel() == SPEC.bilevel()


def test_the_hash_depends_on_spec_and_parameters_and_not_on_metadata() -> None:
    params = SPEC.init(0)
    one = Model(SPEC, params, {})
    assert one.hash == Model(SPEC, dict(reversed(params.items())), {"command": "other"}).hash
    assert one.hash != Model(SPEC, SPEC.init(1), {}).hash
    assert one.hash != Model(SPEC.model_copy(update={"rate": 0.4}), params, {}).hash


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} does not exist"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "{}", '{"format": 1}', '{"spec": {}}', "\x00"])
def test_an_invalid_description_is_refused(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)
    with pytest.raises(UserError, match=r"model\.json"):
        load_model(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    change(folder, format=2)
    with pytest.raises(UserError, match=r"format.* 2"):
        load_model(folder)


def change(folder: Path, **fields: Any) -> None:
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**described, **fields}))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"ways": 1}, "ways: "),
        ({"ways": "many"}, "ways: "),
        ({"filters": 0}, "filters: "),
        ({"rate": 0}, "rate: "),
        ({"rate": float("nan")}, "rate: "),
        ({"delta": -1}, "delta: "),
        ({"shape": [7, 7]}, "shape"),
        ({"colour": "red"}, "colour: "),
        ({"backbone": "resnet"}, "backbone: "),
        ({"algorithm": "reptile"}, "algorithm: "),
        ({"backbone": "mlp", "shrink": 3}, "shrink"),
        ({"pooling": "none"}, "pooling 'none'"),
        ({"activation": "sine"}, "activation 'sine'"),
        ({"blocks": 9, "pooling": "max"}, "9 blocks.*7 x 7"),
    ],
)
def test_an_invalid_field_is_named(folder: Path, fields: dict[str, Any], what: str) -> None:
    change(folder, spec={**SPEC.model_dump(mode="json"), **fields})
    with pytest.raises(UserError, match=what):
        load_model(folder)


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    change(folder, spec={**SPEC.model_dump(mode="json"), "filters": 3})
    with pytest.raises(UserError, match=r"'blocks\.0\.conv\.weight' .*\(2, 1, 3, 3\).*\(3, 1, 3, 3\)"):
        load_model(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    state = tensors()
    del state["head.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"'head\.bias' is missing"):
        load_model(folder)


def test_an_extra_tensor_is_named(folder: Path) -> None:
    save_file({**tensors(), "running_mean": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="'running_mean' is not part"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    state = tensors()
    state["head.weight"][1, 0] = value
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"'head\.weight' .*NaN"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"not tensors", b"\xff" * 2000])
def test_a_file_that_is_not_safetensors_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="not a safetensors file"):
        load_model(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="not a safetensors file"):
        load_model(folder)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_named_safetensors_is_refused_and_not_executed(folder: Path, tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    for write in (lambda: pickle.dumps(Bomb(executed)), lambda: torch_file(executed, folder)):
        (folder / "model.safetensors").write_bytes(write())
        with pytest.raises(UserError, match="not a safetensors file"):
            load_model(folder)
        assert not executed.exists()
    pickle.loads(pickle.dumps(Bomb(executed)))
    assert executed.exists()  # the pickle does execute code


def torch_file(executed: Path, folder: Path) -> bytes:
    torch.save({"head.bias": Bomb(executed)}, folder / "pickle.pt")
    return (folder / "pickle.pt").read_bytes()


def test_half_precision_in_a_model_folder_is_refused(tmp_path: Path) -> None:
    spec = ModelSpec(ways=3, filters=2)
    params = {name: value.to(torch.bfloat16) for name, value in spec.init(0).items()}
    save_model(Model(spec, params, {}), tmp_path)
    with pytest.raises(UserError, match="bfloat16"):
        load_model(tmp_path)
