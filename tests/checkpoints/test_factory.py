"""A network named as package.module:factory: allowed first, called with what it takes, known by its code."""

from __future__ import annotations

import itertools
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
    """A module of a name of its own, as Python remembers those it has imported; returns the name."""
    name = f"somebodys_nets_{next(_numbers)}"
    (folder / f"{name}.py").write_text(f"from torch import nn\n{text}\n")
    return name


def made(folder: Path, text: str, function: str = "net") -> torch.nn.Module:
    name = f"{write(folder, text)}:{function}"
    allow_factory(name)
    return make_module(name, 4, SHAPE)


def test_what_is_a_factory() -> None:
    assert is_factory("package.module:factory")
    assert not is_factory("convnet")


def test_nothing_is_imported_that_was_not_allowed(home: Path) -> None:
    name = write(home, f"open({str(home / 'ran')!r}, 'w')\nnet = lambda: nn.Linear(2, 2)")
    with pytest.raises(UserError, match=rf"not allowed on this machine.*tasklens model --allow {name}:net"):
        make_module(f"{name}:net", 4, SHAPE)
    assert not (home / "ran").exists()
    assert name not in sys.modules
    allow_factory(f"{name}:other")
    with pytest.raises(UserError, match="not allowed"):
        make_module(f"{name}:net", 4, SHAPE)
    allow_factory(f"{name}:net")
    allow_factory(f"{name}:net")
    assert allowed_factories() == (f"{name}:net", f"{name}:other")
    make_module(f"{name}:net", 4, SHAPE)
    assert (home / "ran").exists()


def test_a_model_folder_from_elsewhere_imports_nothing(home: Path) -> None:
    name = write(home, "net = lambda: nn.Sequential(nn.Flatten(), nn.Linear(60, 4))")
    described = ModelSpec(backbone="module", factory=f"{name}:net", ways=4, shape=SHAPE)
    (home / "model").mkdir()
    save_model(Model(described, {"1.weight": torch.zeros(4, 60), "1.bias": torch.zeros(4)}, {}), home / "model")
    assert f"{name}:net" in described.description
    with pytest.raises(UserError, match="not allowed on this machine"):
        load_model(home / "model")
    assert name not in sys.modules
    allow_factory(f"{name}:net")
    assert load_model(home / "model").spec == described


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("", (10, 20)),
        ("ways", (4, 20)),
        ("shape", (10, 60)),
        ("shape, ways=3", (4, 60)),
        ("*, ways, shape, wide=1", (4, 60)),
        ("*more, **others", (10, 20)),
    ],
)
def test_it_is_called_with_what_it_takes(home: Path, arguments: str, wanted: tuple[int, int]) -> None:
    text = f"""
def net({arguments}):
    known = locals()
    h, w, c = known.get("shape", (5, 4, 1))
    return nn.Linear(h * w * c, known.get("ways", 10))
"""
    assert made(home, text).weight.shape == wanted


def test_a_class_is_a_factory_too(home: Path) -> None:
    made(home, "class Net(nn.Linear):\n    def __init__(self, ways):\n        super().__init__(7, ways)", "Net")


def test_the_same_module_every_time_is_copied(home: Path) -> None:
    name = write(home, "one = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(60), nn.Linear(60, 4))\nnet = lambda: one")
    allow_factory(f"{name}:net")
    spec = spec_of({"backbone": "module", "factory": f"{name}:net", "ways": 4, "shape": SHAPE})
    assert spec.network().notes == spec.network().notes != ()
    assert isinstance(sys.modules[name].one[1], torch.nn.BatchNorm1d)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def net(size): pass", "needs the argument 'size'"),
        ("def net(): return 3", "made a int, not a torch.nn.Module"),
        ("def net(): raise KeyError('x')", r"failed: KeyError: 'x'\.? .*Correct it"),
        ("net = 3", "has no function 'net'"),
        ("other = 3", "has no function 'net'"),
        (
            "import nowhere_at_all",
            "cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'.*PYTHONPATH",
        ),
        ("def net(:", "cannot be imported: SyntaxError"),
    ],
)
def test_what_does_not_work_says_so(home: Path, text: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        made(home, text)


@pytest.mark.parametrize("name", ["net", "a b:c", "a:", ":b", "a:b:c", "a.:b", "../a:b", "a:b()", "a-b:c"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"does not name a factory.*package\.module:factory"):
        allow_factory(name)


def test_a_damaged_list_is_named(home: Path) -> None:
    (home / "home").mkdir()
    (home / "home" / "factories.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"factories\.json is not a list"):
        allowed_factories()


def test_a_model_knows_the_code_of_its_network(home: Path) -> None:
    text = "def net(ways, shape):\n    return nn.Sequential(nn.Flatten(), nn.Linear(60, ways))"
    name = write(home, text)
    allow_factory(f"{name}:net")
    described = spec_of({"backbone": "module", "factory": f"{name}:net", "ways": 4, "shape": SHAPE}).with_code_hash()
    assert described.code == code_hash(f"{name}:net", 4, SHAPE)
    described.network()
    (home / f"{name}.py").write_text("from torch import nn\n" + text.replace("Flatten()", "Flatten(), nn.Tanh()"))
    with pytest.raises(UserError, match="is not what it was when this model was made"):
        described.network()
    assert described.with_code_hash().code != described.code


def test_a_factory_goes_with_the_backbone_module_alone() -> None:
    for fields in ({"backbone": "module"}, {"backbone": "cnn4", "factory": "a:b"}):
        with pytest.raises(UserError, match="Name a network of your own by its function"):
            spec_of({"ways": 3, **fields})
