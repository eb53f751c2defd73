"""The data folders of earlier versions open, give what they gave, and the work in them goes on (README.md)."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from core.editing.settings import CONTROLS
from core.workspace.workspace import Workspace
from tests.cli.shell import Shell
from tests.compatibility import recording

HERE = Path(__file__).parent
VERSIONS = sorted(path.stem for path in HERE.glob("version-*.zip"))
MARK = 0.123  # a figure that no measurement gives


def unpacked(version: str, folder: Path) -> Shell:
    with zipfile.ZipFile(HERE / f"{version}.zip") as archive:
        archive.extractall(folder)
    return Shell(folder)


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def recorded(version: str) -> dict[str, Any]:
    return json.loads((HERE / f"{version}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def opened(version: str, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The folder for tests that only read."""
    return unpacked(version, tmp_path_factory.mktemp(version))


@pytest.fixture
def shell(version: str, tmp_path: Path) -> Shell:
    """The folder for tests that write."""
    return unpacked(version, tmp_path)


def test_image_sets_and_experiments_are_found(opened: Shell, recorded: dict[str, Any]) -> None:
    assert recorded["image_sets"]
    found = [line.split("\t")[0] for line in opened.done("data", "--list").out]
    assert [name for name in found if name in recorded["image_sets"]] == recorded["image_sets"]
    assert recorded["experiments"]
    assert recording.experiments(opened.folder) == recorded["experiments"]


@pytest.mark.parametrize("workspace", recording.WORKSPACES)
def test_a_workspace_opens_as_it_was(opened: Shell, recorded: dict[str, Any], workspace: str) -> None:
    known, folder = recorded[workspace], opened.folder / "home" / workspace
    assert recording.problem(opened, workspace) == known["problem"]
    assert recording.decisions(opened, workspace) == known["decisions"]
    assert recording.views(folder) == known["views"]
    assert recording.jobs(folder) == known["jobs"]


def test_sets_compare(opened: Shell, recorded: dict[str, Any]) -> None:
    found, known = recording.sets(opened, "rows"), recorded["rows"]["sets"]
    assert [one[:2] for one in found] == [one[:2] for one in known]
    for (*_, figures), (*_, before) in zip(found, known, strict=True):
        assert figures == pytest.approx(before, abs=0.011)  # estimates are computed anew, and printed with 3 digits


def test_every_run_is_found_again_by_its_command(opened: Shell, recorded: dict[str, Any]) -> None:
    """No result that a user waited for is computed a second time; only controls that were not made then are new.

    Experiments are left out: a profile of other sizes or models measures anew. Edits by steps are made anew, beside the
    former ones, which stay: their learning rate was lowered, as the former one did harm.
    """
    home = opened.folder / "home"
    assert recording.run_ids(opened.folder) == recorded["runs"]
    commands = {
        run: tuple(json.loads((home / run / "provenance.json").read_text(encoding="utf-8"))["command"][1:])
        for run in recorded["runs"]
    }
    before = {run: _written(home / run) for run in recorded["runs"]}
    found: set[str] = set()
    for command in sorted({command for command in commands.values() if command[0] != "experiments"}):
        found |= {Path(line).relative_to(home).as_posix() for line in opened.done(*command).out if "/runs/" in line}
    printed = {run for run, command in commands.items() if _prints(command, run)}
    assert {run for run in found if not _is_steps(run)} == {run for run in printed if not _is_steps(run)}
    assert len(found) == len(printed)
    added = set(recording.run_ids(opened.folder)) - set(recorded["runs"])
    assert [run for run in added if not _control(run) and not _is_steps(run)] == []
    assert {run: _written(home / run) for run in recorded["runs"]} == before


def _prints(command: tuple[str, ...], run: str) -> bool:
    """Whether a command made a run as its result, and not as a part of it, as controls are unless they are named."""
    control = _control(run)
    return run.rsplit("/", 1)[1].split("-")[0] in command[:2] and (not control or control in command)


def _control(run: str) -> str:
    """The edit method of a run that is a control; empty for any other."""
    return next((method for method in CONTROLS if f"/edit-{method}-" in run), "")


def _is_steps(run: str) -> bool:
    return "/edit-steps-" in run


def _written(run: Path) -> dict[str, int]:
    return {path.relative_to(run).as_posix(): path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


def test_the_decision_log_goes_on(shell: Shell, recorded: dict[str, Any]) -> None:
    before = recorded["rows"]["decisions"]["log"]
    image = next(entry["image_id"] for entry in before if entry["kind"] == "image")
    shell.done("review", "decide", "-w", "rows", "--as", "unsure", "--item", image, "--reviewer", "Cy")
    (*older, newest) = recording.log(shell, "rows")
    assert older == before
    assert (newest["seq"], newest["verdict"], newest["reviewer"]) == (before[-1]["seq"] + 1, "unsure", "Cy")
    for reviewer in ("Cy", "Ann"):  # also what was decided with the earlier version
        shell.done("review", "undo", "-w", "rows", "--reviewer", reviewer)
    undone = recording.log(shell, "rows")[len(before) + 1 :]
    assert {entry["by"] for entry in undone} == {"Cy", "Ann"}
    assert all(entry["undoes"] for entry in undone)


def test_a_snapshot_of_the_log_is_restored(shell: Shell, recorded: dict[str, Any]) -> None:
    shell.done("review", "restore", "final", "-w", "rows", "--reviewer", "Cy")
    assert shell.done("review", "diff", "final", "-w", "rows").out == []
    assert recording.log(shell, "rows") == recorded["rows"]["decisions"]["log"]  # it is the present state
    shell.done("review", "restore", "plain", "-w", "rows", "--reviewer", "Cy")
    assert shell.done("review", "diff", "plain", "-w", "rows").out == []


@pytest.mark.parametrize("workspace", recording.WORKSPACES)
def test_the_queue_opens_with_the_same_counts(shell: Shell, recorded: dict[str, Any], workspace: str) -> None:
    found, known = recording.queue(shell, workspace), recorded[workspace]["queue"]
    by_influence = sum(entry["source"].startswith("rank-") for entry in recorded[workspace]["decisions"]["log"])
    if not by_influence:
        assert found == known
        return
    # What that version removed by influence is no label error; the estimate of those that are left changes with it.
    items, estimated = 5, known.index(90.0)
    assert found[:items] == known[:items]
    assert (found[items], found[items + 2]) == (known[items], known[items + 2] - by_influence), "decided, and errors"
    assert found[-len(known[estimated + 1 :]) :] == known[estimated + 1 :]


def test_decisions_without_a_cause_have_the_one_of_their_list(opened: Shell) -> None:
    rows, images = (Workspace(opened.folder / "home" / name).decisions.current() for name in recording.WORKSPACES)
    assert Counter(entry.cause for entry in images.values()) == {"harmful": 2, "label-error": 2}
    assert {(item.kind == "task", entry.cause) for item, entry in rows.items()} == {
        (True, "other"),
        (False, "label-error"),
    }


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_exported_decisions_are_imported(shell: Shell, recorded: dict[str, Any], suffix: str) -> None:
    home = shell.folder / "home"
    (exported,) = (home / "rows" / "exports" / "decisions").glob(f"decisions.{suffix}")
    shell.done("review", "import", "-w", "rows", exported)
    assert recording.log(shell, "rows") == recorded["rows"]["decisions"]["log"]  # nothing is written twice
    for path in (home / "rows").glob("decisions.sqlite*"):
        path.unlink()
    shell.done("review", "import", "-w", "rows", exported)
    made, known = recording.current(shell, "rows"), recorded["rows"]["decisions"]["current"]
    assert sorted(made, key=str) == sorted(known, key=str)


THEN_DEFAULTS = {"--inner-rate": "0.4", "--meta-batch": "12", "--learning-rate": "0.003"}
"""The defaults of the train command before recipes."""


def test_an_interrupted_training_goes_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shell.folder / "home" / "library" / "models" / "half"
    with safe_open(folder / "state.safetensors", "pt") as stream:
        state = json.loads(stream.metadata()["state"])
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    state["history"][0]["loss"] = MARK
    save_file(tensors, folder / "state.safetensors", metadata={"state": json.dumps(state)})
    monkeypatch.chdir(shell.folder)
    command = unfinished(shell, "train")
    shell.done(*command, *(part for option in THEN_DEFAULTS.items() if option[0] not in command for part in option))
    history = json.loads((folder / "model.json").read_text(encoding="utf-8"))["story"]["history"]
    assert history[0]["loss"] == MARK
    assert history[-1]["done"] > state["done"] > 0
    assert not (folder / "state.safetensors").exists()


def test_an_interrupted_curve_goes_on(shell: Shell) -> None:
    (begun,) = (shell.folder / "home" / "images" / "runs").glob(".curve-*/")
    kept = list(begun.glob("memory/*/*.npz"))
    assert kept
    for path in kept:
        with np.load(path) as stored:
            removed, _, loss = stored["arr_0"]
        np.savez(path, np.array([removed, MARK, loss]))
    finished = shell.done(*unfinished(shell, "curve")).path
    assert finished.name == begun.name.removeprefix(".")
    accuracy = pd.read_parquet(finished / "points.parquet")["accuracy"]
    assert (accuracy == MARK).sum() == len(kept) < len(accuracy)


def unfinished(shell: Shell, name: str) -> list[str]:
    """The command that was interrupted."""
    commands = map(str.split, (shell.folder / recording.UNFINISHED).read_text(encoding="utf-8").splitlines())
    return next(command for command in commands if command[0] == name)
