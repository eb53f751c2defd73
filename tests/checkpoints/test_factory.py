"""Networks named as package.module:factory: the allow list, the call, and the hash of the code."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest
import torch

from core.checkpoints.factory import allow_factory, allowed_factories, code_hash, is_factory, make_module
from core.checkpoints.model import Model, ModelSpec, load_model, save_model, spec_of
from core.runtime.errors import UserError

_numbers = itertools.count()
SHAPE = (6, 5, 2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASKLENS_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder: Path, text: str) -> str:
    """Write a module of a new name, because Python caches imported modules, and return the name."""
    name = f"somebodys_nets_{next(_numbers)}"
    (folder / f"{name}.py").write_text(f"from torch import nn\n{text}\n")
    return name


def build_module(folder: Path, text: str, function: str = "net") -> torch.nn.Module:
    name = f"{write(folder, text)}:{function}"
    allow_factory(name)
    return make_module(name, 4, SHAPE)


def test_factory_names_contain_a_colon() -> None:
    assert is_factory("package.module:factory")
    assert not is_factory("convnet")


def test_only_allowed_factories_are_imported(home: Path) -> None:
    name = write(home, f"open({str(home / 'ran')!r}, 'w')\nnet = lambda: nn.Linear(2, 2)")
    with pytest.raises(UserError, match=rf"tasklens model --allow {name}:net"):
        make_module(f"{name}:net", 4, SHAPE)
    assert not (home / "ran").exists()
    assert name not in sys.modules
    allow_factory(f"{name}:other")
    with pytest.raises(UserError, match=f"--allow {name}:net"):
        make_module(f"{name}:net", 4, SHAPE)
    allow_factory(f"{name}:net")
    allow_factory(f"{name}:net")
    assert allowed_factories() == (f"{name}:net", f"{name}:other")
    make_module(f"{name}:net", 4, SHAPE)
    assert (home / "ran").exists()


def test_loading_a_model_folder_imports_no_factory_that_is_not_allowed(home: Path) -> None:
    name = write(home, "net = lambda: nn.Sequential(nn.Flatten(), nn.Linear(60, 4))")
    described = ModelSpec(backbone="module", factory=f"{name}:net", ways=4, shape=SHAPE)
    (home / "model").mkdir()
    save_model(Model(described, {"1.weight": torch.zeros(4, 60), "1.bias": torch.zeros(4)}, {}), home / "model")
    assert f"{name}:net" in described.description
    with pytest.raises(UserError, match=f"--allow {name}:net"):
        load_model(home / "model")
    assert name not in sys.modules
    allow_factory(f"{name}:net")
    assert load_model(home / "model").spec == described


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", (10, 20)),
        ("ways", (4, 20)),
        ("shape", (10, 60)),
        ("shape, ways=3", (4, 60)),
        ("*, ways, shape, wide=1", (4, 60)),
        ("*more, **others", (10, 20)),
    ],
)
def test_a_factory_is_called_with_the_parameters_it_has(home: Path, arguments: str, expected: tuple[int, int]) -> None:
    text = f"""
def net({arguments}):
    known = locals()
    h, w, c = known.get("shape", (5, 4, 1))
    return nn.Linear(h * w * c, known.get("ways", 10))
"""
    assert build_module(home, text).weight.shape == expected


def test_a_class_can_be_a_factory(home: Path) -> None:
    build_module(home, "class Net(nn.Linear):\n    def __init__(self, ways):\n        super().__init__(7, ways)", "Net")


def test_a_module_that_the_factory_returns_repeatedly_is_copied(home: Path) -> None:
    name = write(home, "one = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(60), nn.Linear(60, 4))\nnet = lambda: one")
    allow_factory(f"{name}:net")
    spec = spec_of({"backbone": "module", "factory": f"{name}:net", "ways": 4, "shape": SHAPE})
    assert spec.network().notes == spec.network().notes != ()
    assert isinstance(sys.modules[name].one[1], torch.nn.BatchNorm1d)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def net(size): pass", "argument: 'size'"),
        ("def net(): return 3", "returned a int"),
        ("def net(): raise KeyError('x')", "KeyError: 'x'"),
        ("net = 3", "has no function 'net'"),
        ("other = 3", "has no function 'net'"),
        (
            "import nowhere_at_all",
            "ModuleNotFoundError: No module named 'nowhere_at_all'.*PYTHONPATH",
        ),
        ("def net(:", "SyntaxError"),
    ],
)
def test_a_failing_factory_is_refused_with_the_reason(home: Path, text: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        build_module(home, text)


@pytest.mark.parametrize("name", ["net", "a b:c", "a:", ":b", "a:b:c", "a.:b", "../a:b", "a:b()", "a-b:c"])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(repr(name))}.*package\.module:factory"):
        allow_factory(name)


def test_a_damaged_allow_list_is_refused(home: Path) -> None:
    (home / "home").mkdir()
    (home / "home" / "factories.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"factories\.json"):
        allowed_factories()


def test_a_model_is_refused_after_a_change_of_its_factory_code(home: Path) -> None:
    text = "def net(ways, shape):\n    return nn.Sequential(nn.Flatten(), nn.Linear(60, ways))"
    name = write(home, text)
    allow_factory(f"{name}:net")
    described = spec_of({"backbone": "module", "factory": f"{name}:net", "ways": 4, "shape": SHAPE}).with_code_hash()
    assert described.code == code_hash(f"{name}:net", 4, SHAPE)
    described.network()
    (home / f"{name}.py").write_text("from torch import nn\n" + text.replace("Flatten()", "Flatten(), nn.Tanh()"))
    with pytest.raises(UserError, match=f"code of {name}:net has changed"):
        described.network()
    assert described.with_code_hash().code != described.code


def test_a_factory_is_required_by_the_backbone_module_only() -> None:
    for fields in ({"backbone": "module"}, {"backbone": "cnn4", "factory": "a:b"}):
        with pytest.raises(UserError, match=r"package.module:factory"):
            spec_of({"ways": 3, **fields})
