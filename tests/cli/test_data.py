"""User data on the command line: from image files to training on the cleaned list, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.actions.image_settings import ImportOptions
from core.actions.inspect import Inspection, inspect_images
from core.cli.problem import COSTS, FAULTS, FOUND
from core.runtime.files import HOME_VARIABLE
from core.tasks.changes import cleaned
from core.tasks.generate import read_folder
from core.workspace.workspace import Workspace
from tests.cli.shell import SOLVE, Shell
from tests.data.pictures import write_files
from tests.lookalikes import make_all

SHAPE = ["--ways", "2", "--shots", "1", "--queries", "1", "--count", "4", "--heldout", "2"]
SMALL = ["--filters", "2", "--iterations", "2", "--device", "cpu"]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    make_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return Shell(tmp_path)


def test_imported_images_are_cleaned_and_trained_on_again(shell: Shell) -> None:
    images = shell.done("data", "--path", "data/split", "--name", "own")
    assert "own: 24 images of 28 x 28 x 1, 6 classes" in images.err
    shell.done("tasks", "--data", "own", *SHAPE, "--out", "tasks")
    shell.done("train", "--tasks", "tasks", "--out", "model", *SMALL)
    shell.done("open", "--tasks", "tasks", "--model", "model", "-w", "mine")
    shell.done("rank", "-w", "mine", *SOLVE)
    shell.done("remove", "-w", "mine", "--worst", "1")
    out = shell.done("export", "-w", "mine", "--formats", "parquet,learn2learn,torchmeta,easyfsl").path
    opened = Workspace(shell.folder / "home" / "mine")
    wanted = cleaned(opened.project().tasks.train, opened.changes()).hash
    names = [
        "cleaned-tasks.parquet",
        *(f"cleaned-tasks.{name}.json" for name in ("learn2learn", "torchmeta", "easyfsl")),
    ]
    for number, name in enumerate(names):
        lists = ["--train-list", out / name, "--heldout-list", "tasks/heldout.parquet"]
        shell.done("tasks", "--data", "own", *lists, "--out", f"again{number}")
        assert read_folder(shell.folder / f"again{number}").train.hash == wanted
    shell.done("train", "--tasks", "again0", "--out", "retrained", *SMALL)


def test_a_dry_run_estimates_each_stage(shell: Shell) -> None:
    shell.done("data", "--path", "data/split", "--name", "own")
    shell.done("tasks", "--data", "own", *SHAPE, "--out", "tasks")
    lines = shell.done("train", "--tasks", "tasks", "--out", "model", *SMALL, "--dry-run").out
    assert [line.split()[0] for line in lines[lines.index(COSTS) + 1 :]] == [
        *("Train", "Evaluate", "Rank", "Fine-tune"),
    ]
    assert not Path("model").exists()


def test_a_dry_run_exits_with_an_error_if_something_does_not_fit(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.done("tasks", "--data", "mnist5k", "--ways", "3", *SHAPE[2:], "--out", "digits")
    monkeypatch.setattr("core.actions.inspect.inspect_problem", lambda *_: Inspection(faults=("Too large.",)))
    result = shell("train", "--tasks", "digits", "--out", "model", *SMALL, "--dry-run")
    assert result.code == 2
    assert result.out == [FOUND, FAULTS, "  Too large."]


def test_an_inspection_as_json(shell: Shell) -> None:
    result = shell("inspect", "--path", "data/broken", "--json")
    report = json.loads(result.out[-1])
    assert result.code == 2
    assert shell.done("inspect", "--path", "data/mine", "--json").out
    assert report["found"][0].startswith("broken: 7 images of 2 classes")
    assert all(part in report["found"][1] for part in ("3 ('dog')", "4 ('cat')"))
    assert "cat/4.png" in report["faults"][0]
    assert report["costs"] == []


def test_inspect_reports_a_model_that_does_not_fit(shell: Shell) -> None:
    shell.done("data", "--path", "data/split", "--name", "own")
    shell.done("tasks", "--data", "own", *SHAPE, "--out", "tasks")
    shell.done("train", "--tasks", "tasks", "--out", "model", *SMALL)
    shell.done("tasks", "--data", "mnist5k", "--ways", "3", *SHAPE[2:], "--out", "digits")
    result = shell("inspect", "--tasks", "digits", "--model", "model")
    assert result.code == 2
    lines = result.out
    assert "2-way" in lines[lines.index(FAULTS) + 1]
    assert "3-way" in lines[lines.index(FAULTS) + 1]


def test_tasks_whose_images_are_missing_name_them(shell: Shell) -> None:
    folder = shell.done("data", "--path", "data/split", "--name", "own").path
    shell.done("tasks", "--data", "own", *SHAPE, "--out", "tasks")
    folder.rename(shell.folder / "gone")
    error = shell.refused("train", "--tasks", "tasks", "--out", "model", *SMALL)
    assert "'own'" in error
    shell.done("data", "--path", "data/split", "--name", "another-name")  # the same content under another name
    shell.done("train", "--tasks", "tasks", "--out", "model", *SMALL)


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["data"], "--path"),
        (["data", "--path", "nowhere"], "nowhere"),
        (["data", "--path", "data/mine", "--format", "idx"], "format: 'idx'"),
        (["data", "--path", "data/mine", "--size", "8x8"], "'8x8'"),
        (["data", "--path", "data/mine", "--channels", "2"], "channels: 2"),
        (["data", "--path", "data/mine", "--name", "../x"], "'../x'"),
        (["data", "--path", "data/latin/images.csv"], "--encoding"),
        (["data", "--path", "data/cifar"], "--format fc100"),
        (["data", "--path", "data/broken"], "cat/4.png"),
        (["data", "--path", "new", "--format", "mini-imagenet", "--download"], "mini-imagenet"),
        (["inspect"], "--workspace"),
        (["inspect", "--model", "model"], "--tasks"),
        (["inspect", "--path", "data/mine", "--model", "model"], "--tasks"),
        (["inspect", "--workspace", "mine", "--tasks", "tasks"], "--tasks"),
        (["inspect", "--path", "data/mine", "--backbone", "cnn4"], "--checkpoint"),
        (["inspect", "--checkpoint", "some.pt", "--size", "84"], "--size"),
        (["inspect", "--tasks", "tasks", "--invert"], "--invert"),
        (["inspect", "--checkpoint", "some.pt", "--format", "folder"], "--format"),
        (["tasks", "--data", "nobody", "--out", "t"], "'nobody'"),
        (["tasks", "--train-list", "a.csv", "--out", "t"], "--heldout-list"),
        (["tasks", "--split", "official", "--out", "t"], "split"),
        (["tasks", "--ways", "11", "--out", "t"], "11"),
        (["tasks", "--shots", "400", "--out", "t"], "410"),
    ],
)
def test_invalid_input_names_the_value(shell: Shell, args: list[str], value: str) -> None:
    assert value in shell.refused(*args)


def test_names_that_are_taken_are_said(shell: Shell) -> None:
    shell.done("data", "--path", "data/mine", "--name", "first")
    assert "'first'" in shell.done("data", "--path", "data/mine", "--name", "second").err
    assert any("second, first" in line for line in shell.done("data", "--list").out)
    assert "other image sets called 'second'" in shell.done("data", "--path", "data/split", "--name", "second").err


def test_a_split_without_a_part_for_held_out_tasks_is_not_the_default(shell: Shell) -> None:
    """A table train.csv alone lists all labels that people have."""
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]}\n" for n in range(24))
    write_files(shell.folder / "data/kaggle", {"train.csv": f"image_id,label\n{rows}".encode()})
    write_files(shell.folder / "data/kaggle/images", [f"{n}.jpg" for n in range(24)])
    shell.done("data", "--path", "data/kaggle", "--name", "kaggle")
    drawn = shell.done("tasks", "--data", "kaggle", *SHAPE, "--validation", "0", "--out", "drawn").path
    assert read_folder(drawn).train.ways == 2
    refused = shell("tasks", "--data", "kaggle", *SHAPE, "--split", "official", "--out", "refused")
    assert refused.code == 2
    assert "--split images" in refused.err


def test_a_single_class_does_not_fit(shell: Shell) -> None:
    (shell.folder / "data/table/one.csv").write_text("path,label\nimages/1.jpg,cat\nimages/2.jpg,cat\n")
    assert shell("inspect", "--path", "data/table/one.csv").code == 2


def test_images_of_different_sizes_are_previewed_on_squares(shell: Shell) -> None:
    report, preview = inspect_images(shell.folder / "data/photos", ImportOptions())
    assert report.faults
    assert preview is not None
    assert (preview.is_final, set(preview.classes), preview.counts) == (False, {"cat", "dog"}, {"cat": 2, "dog": 2})
    assert inspect_images(shell.folder / "data/photos", ImportOptions(size="28", fit="pad"))[1].is_final  # type: ignore[union-attr]
