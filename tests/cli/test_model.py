"""External checkpoints and user networks on the command line: imported, ranked, edited, exported; and errors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from core.checkpoints.model import ModelSpec, load_model, spec_of
from core.cli.problem import FAULTS
from core.workspace.workspace import Workspace
from tests.cli.shell import SOLVE, TASKS, Shell

NETS = """
import torch
from torch import nn

def small(ways, shape):
    height, width, channels = shape
    return nn.Sequential(
        nn.Conv2d(channels, 2, 3, stride=4), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(2 * 7 * 7, ways),
    )

def random():
    class Random(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)) + torch.rand(())
    return Random(784, 3)
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    (tmp_path / "nets_of_the_command_line.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    shell = Shell(tmp_path)
    shell.done(*TASKS, "--out", tmp_path / "tasks")
    return shell


NET = "nets_of_the_command_line:small"
STEPS = ["--inner-steps", "1", "--inner-rate", "0.5"]


def checkpoint(folder: Path, backbone: str = "omniglot-cnn", **fields: object) -> Path:
    spec = spec_of({"backbone": backbone, "ways": 3, "filters": 2, "shape": (28, 28, 1), **fields})
    network = spec.network()
    torch.save(
        {f"module.{name}": value for name, value in network.state_dict(spec.init(0)).items()}, folder / "some.pt"
    )
    return folder / "some.pt"


def test_an_external_checkpoint_from_import_to_export(shell: Shell) -> None:
    folder = shell.folder
    given = [
        "model",
        "--checkpoint",
        checkpoint(folder),
        *STEPS,
        "--tasks",
        folder / "tasks",
        "--out",
        folder / "model",
    ]
    made = shell.done(*given)
    assert made.out == [str(folder / "model")]
    assert "layers: 4" in made.err
    assert load_model(folder / "model").spec.description in made.err
    assert shell.done(*given).out == made.out
    metadata = load_model(folder / "model").metadata
    assert metadata["origin"]["path"] == str(folder / "some.pt")
    assert metadata["command"].startswith("tasklens model --checkpoint")
    shell.done("open", "--tasks", folder / "tasks", "--model", folder / "model", "-w", "mine")
    shell.done("rank", "-w", "mine", *SOLVE)
    shell.done("remove", "-w", "mine", "--worst", "1")
    edited = shell.done("edit", "-w", "mine", "--how", "finetune", "--finetune-steps", "1", *SOLVE)
    assert "model.json" in shell.refused("edit", "-w", "mine", "--how", "retrain", *SOLVE)
    shell.done("export", "-w", "mine", "--model", edited.path.name, "--out", folder / "out")
    exported = torch.load(folder / "out" / "model" / "learn2learn.pt", weights_only=True)
    params = load_model(folder / "out" / "model").params
    assert all(torch.equal(exported[name], value) for name, value in params.items())
    assert torch.equal(exported["features.1.0.conv.weight"], params["base.0.conv.weight"])


def test_a_checkpoint_that_does_not_fit_the_tasks_is_refused(shell: Shell) -> None:
    folder = shell.folder
    given = ["model", *STEPS, "--tasks", folder / "tasks", "--out", folder / "model", "--checkpoint"]
    assert "3-way" in shell.refused(*given, checkpoint(folder, ways=5))
    assert "shape" in shell.refused(*given, checkpoint(folder, "cnn4", shape=(84, 84, 3)))
    assert "none.pt" in shell.refused(*given, folder / "none.pt")
    assert not (folder / "model").exists()
    alone = ["model", "--checkpoint", checkpoint(folder, "cnn4"), *STEPS, "--out", folder / "model"]
    for size in ("28,28", "0,28,1"):
        assert "shape" in shell.refused(*alone, "--shape", size)
    assert shell.done(*alone, "--shape", "28,28,1", "--delta", "0.5").out == [str(folder / "model")]
    assert load_model(folder / "model").spec.delta == 0.5
    assert str(folder / "model") in shell.refused(*alone, "--shape", "28,28,1")
    assert "--checkpoint" in shell.refused("model", "--out", folder / "model")


def test_an_inspection_exits_with_an_error_if_the_checkpoint_does_not_fit(shell: Shell) -> None:
    inspect = ["inspect", "--tasks", shell.folder / "tasks", "--checkpoint"]
    fitting = shell.done(*inspect, checkpoint(shell.folder))
    assert FAULTS not in fitting.out
    for options in ([], ["--json"]):
        other = shell(*inspect, checkpoint(shell.folder, ways=5), *options)
        assert other.code == 2
        assert any("3-way" in line for line in other.out)
    assert "none.pt" in shell.refused(*inspect, shell.folder / "none.pt")


def test_a_training_checkpoint_with_other_objects_and_a_loss_is_imported(shell: Shell) -> None:
    content = {f"model.{name}": value for name, value in torch.load(checkpoint(shell.folder)).items()}
    content["criterion.weight"] = torch.ones(3)
    records = {"best_acc": np.float64(0.9), "args": argparse.Namespace(out=Path("runs"))}
    torch.save({"state_dict": content, **records}, shell.folder / "last.ckpt")
    given = [*STEPS, "--tasks", shell.folder / "tasks", "--out", shell.folder / "model"]
    made = shell.done("model", "--checkpoint", shell.folder / "last.ckpt", *given)
    assert all(name in made.err for name in ("'best_acc'", "'args'", "'criterion.weight'"))
    (shell.folder / "page.pt").write_text("<!DOCTYPE html><html><title>Sign in</title></html>")
    assert "web page" in shell.refused("inspect", "--checkpoint", shell.folder / "page.pt")


@pytest.mark.parametrize("algorithm", ["meta-sgd", pytest.param("anil", marks=pytest.mark.slow)])
def test_a_user_network_is_trained_and_ranked(shell: Shell, algorithm: str) -> None:
    folder = shell.folder
    train = ["train", "--tasks", folder / "tasks", "--iterations", "2", "--device", "cpu", "--algorithm", algorithm]
    shell.done(*train, "--out", folder / "model", "--backbone", NET)
    spec = ModelSpec.model_validate(json.loads((folder / "model" / "model.json").read_text())["spec"])
    assert (spec.backbone, spec.factory, spec.algorithm) == ("module", NET, algorithm)
    shell.done("open", "--tasks", folder / "tasks", "--model", folder / "model", "-w", "mine")
    shell.done("rank", "-w", "mine", *SOLVE)
    opened = Workspace(folder / "home" / "mine")
    (opened.folder.parent / "factories.json").unlink()
    assert f"tasklens model --allow {NET}" in shell.refused("evaluate", "-w", "mine", "--device", "cpu")
    assert f"{NET} may be imported" in shell.done("model", "--allow", NET).err
    shell.done("evaluate", "-w", "mine", "--device", "cpu")


def test_an_unusable_network_is_refused_before_training(shell: Shell) -> None:
    train = [
        "train",
        "--tasks",
        shell.folder / "tasks",
        "--out",
        shell.folder / "model",
        "--device",
        "cpu",
        "--backbone",
    ]
    assert "nets_of_the_command_line:random" in shell.refused(*train, "nets_of_the_command_line:random")
    assert "'none'" in shell.refused(*train, "nets_of_the_command_line:none")
    assert "PYTHONPATH" in shell.refused(*train, "nowhere.at_all:net")
    assert "nowhere at:all" in shell.refused(*train, "nowhere at:all")
    assert "backbone: " in shell.refused(*train, "resnet")
    assert "package.module:factory" in shell.refused(*train, "module")
    assert "--activation" in shell.refused(*train, NET, "--activation", "tanh")
    assert "--hidden" in shell.refused(*train, "mini-imagenet-cnn", "--hidden", "4")
    assert not (shell.folder / "model").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--backbone", "cnn4", "--filters", "2"],
        pytest.param(["--backbone", "mini-imagenet-cnn"], marks=pytest.mark.slow),
    ],
)
def test_networks_of_learn2learn_are_trained(shell: Shell, options: list[str]) -> None:
    train = ["train", "--tasks", shell.folder / "tasks", "--iterations", "1", "--device", "cpu"]
    shell.done(*train, "--out", shell.folder / "model", *options)
    spec = load_model(shell.folder / "model").spec
    assert (spec.backbone, spec.filters, spec.pooling) == ("cnn4", 2 if "--filters" in options else 64, "max")
