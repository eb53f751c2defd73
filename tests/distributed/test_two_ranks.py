"""Two processes with gloo give the results of one, on one or two disks, also after kills and errors.

Tests of the behaviour of torchrun start it; the others fork two processes (:mod:`tests.distributed.ranks`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.checkpoints.model import load_model
from core.cli.app import CANCELLED
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import PROGRESS_FILE_VARIABLE
from core.workspace.runs import Run
from tests.cli.shell import ROOT, SOLVE, TRAIN, Shell, made

EXACT = ["--dtype", "float64", "--chunk", "1", "--device", "cpu"]
LONG = ["--filters", "2", "--iterations", "2000", "--polish", "0", "--device", "cpu"]
FEW = ["--subsets", "3", "--seeds", "1", "--targets", "2", "--iterations", "2"]
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts")
FORKED = ("tests.distributed.ranks",)
TRAINED = [*TRAIN, *EXACT, "--meta-batch", "3", "--polish", "2", "--tasks", "DISK/tasks", "--out", "DISK/again"]
COMMANDS = [
    TRAINED,
    ["evaluate", "-w", "mine", *EXACT],
    ["rank", "-w", "mine", "--target", "h0", *SOLVE, *EXACT],  # one task, so rank 1 has no chunk
    ["curve", "-w", "mine", "--shares", "0,0.5", "--seeds", "1", "--finetune-steps", "1", *EXACT],
    ["edit", "-w", "mine", "--how", "linear", "--how", "finetune", "--finetune-steps", "2", *SOLVE, *EXACT],
    ["edit", "-w", "mine", "--how", "newton", "--how", "steps", *EXACT],
    ["evidence", "-w", "mine", "--methods", "dot,loss,task-if:damping=0.5", *FEW, *EXACT],
]
KINDS = {
    f"edit-{method}"
    for method in ("linear", *(f"{name}{end}" for name in ("finetune", "newton", "steps") for end in ("", "-all")))
}
KINDS |= {"curve", "evaluate", "evidence", "rank", "retraining", "scores"}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace in which two tasks are marked for removal."""
    folder = tmp_path_factory.mktemp("ready")
    made(folder).done("remove", "-w", "mine", "--task", "t1", "--task", "t3")
    return folder


def started(folder: Path, how: tuple[str, ...], *args: str | Path) -> subprocess.Popen[str]:
    """Start two processes whose home and progress file are in ``folder``."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        HOME_VARIABLE: str(folder / "home"),
        PROGRESS_FILE_VARIABLE: str(folder / "progress.json"),
    }
    command = [sys.executable, "-m", *how, *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(folder: Path, how: tuple[str, ...], *args: str | Path) -> subprocess.CompletedProcess[str]:
    process = started(folder, how, *args)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_close(one: pd.DataFrame, two: pd.DataFrame) -> None:
    assert list(one) == list(two)
    for column in one:
        if one[column].dtype == np.float64:
            scale = np.nanmax(np.abs(one[column]))
            np.testing.assert_allclose(one[column], two[column], rtol=0, atol=1e-6 * scale, err_msg=str(column))
        else:
            assert one[column].map(str).tolist() == two[column].map(str).tolist(), column


@pytest.mark.slow
def test_two_machines_give_the_results_of_one_process(ready: Path, tmp_path: Path) -> None:
    for name in ("rank0", "rank1", "alone"):
        shutil.copytree(ready, tmp_path / name)
    done = ended(tmp_path, FORKED, "tests.distributed.two_machines", tmp_path, json.dumps(COMMANDS))
    assert done.returncode == 0, done.stderr
    shell = Shell(tmp_path / "alone")
    for command in COMMANDS:
        shell.done(*[part.replace("DISK", str(tmp_path / "alone")) for part in command])

    trained = [load_model(tmp_path / name / "again").params for name in ("alone", "rank0")]
    assert all(np.allclose(trained[0][key], trained[1][key], rtol=0, atol=1e-5) for key in trained[0])
    assert not (tmp_path / "rank1" / "again").exists()

    alone, first, second = (tmp_path / name / "home" / "mine" / "runs" for name in ("alone", "rank0", "rank1"))
    names = sorted(path.name for path in alone.iterdir())
    assert {name.rsplit("-", 1)[0] for name in names} == KINDS
    assert sorted(path.name for path in first.iterdir()) == names
    assert sorted(path.name for path in second.glob("[!.]*")) == names
    compared = 0
    for name in names:
        one, two = Run(alone / name), Run(first / name)
        assert sorted(files(one.folder)) == sorted(files(two.folder))
        assert files(two.folder) == files(second / name)
        # Each retraining runs on one process.
        assert two.json("provenance.json")["processes"] == (1 if one.kind == "retraining" else 2)
        for table in one.folder.glob("*.parquet"):
            if table.name != "methods.parquet":  # it contains durations
                assert_close(one.table(table.name), two.table(table.name))
                compared += 1
    assert compared >= len(KINDS)
    for name in names:
        if name.startswith("evidence"):
            both = [Run(folder / name).table("methods.parquet")["lds"] for folder in (alone, first)]
            np.testing.assert_allclose(*both)


@pytest.mark.slow
def test_a_killed_worker_restarts_and_no_finished_chunk_is_repeated(ready: Path, tmp_path: Path) -> None:
    shutil.copytree(ready, tmp_path / "copy")
    log = tmp_path / "log"
    rank = ["rank", "-w", "mine", *SOLVE, *EXACT]
    dying = ["tests.distributed.dying", log, "killed", *rank]
    done = ended(tmp_path / "copy", (*TORCHRUN, "1", "-m"), *dying)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in log.read_text().splitlines()]
    did = [[name for attempt, _, name in lines if attempt == number] for number in ("0", "1")]
    steps = [[name for name in names if name.startswith("memory/")] for names in did]
    chunks = [[name for name in names if not name.startswith("memory/")] for names in did]
    assert steps[1] == []  # the solve was over
    assert len(chunks[0]) in range(2, 6)  # the two of rank 1, and those that rank 0 had finished of its three
    assert chunks[1]
    assert len(set(chunks[0] + chunks[1])) == len(chunks[0] + chunks[1])
    (run,) = (tmp_path / "copy" / "home" / "mine" / "runs").glob("rank-*")
    assert done.stdout.splitlines() == [str(run)]
    shell = Shell(tmp_path / "alone")
    shutil.copytree(ready, shell.folder)
    assert_close(Run(run).table("instances.parquet"), Run(shell.done(*rank).path).table("instances.parquet"))
    messages = [line for line in done.stderr.splitlines() if line.startswith("scores: 0/6")]
    assert len(messages) == 2  # one rank in two attempts
    assert json.loads((tmp_path / "copy" / "progress.json").read_text())["done"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("how", [FORKED, (*TORCHRUN, "0", "-m")], ids=["forked", "torchrun"])
def test_an_error_of_one_rank_is_printed_once_and_ends_all(ready: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    shutil.copytree(ready, tmp_path / "copy")
    dying = ["tests.distributed.dying", tmp_path / "log", "wrong", "rank", "-w", "mine", *SOLVE, *EXACT]
    done = ended(tmp_path / "copy", how, *dying)
    assert done.stderr.count("The images of rank 1 are gone. Find them.") == 1
    # torchrun reports the processes that had already ended.
    assert set(re.findall(r"exitcode +: (\S+)", done.stderr)) == {"2"}, done.stderr
    assert done.stdout == ""
    runs = tmp_path / "copy" / "home" / "mine" / "runs"
    assert [path.name for path in runs.glob("rank-*")] == []


@pytest.mark.slow
def test_cancelling_ends_both_and_keeps_finished_chunks(ready: Path, tmp_path: Path) -> None:
    shutil.copytree(ready, tmp_path / "copy")
    train = ["train", *LONG, "--tasks", ready / "tasks", "--out", tmp_path / "model"]
    process = started(tmp_path / "copy", (*TORCHRUN, "0", "-m"), "core", *train)
    state = tmp_path / "model" / "state.safetensors"
    while not state.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert err.count(CANCELLED) == 1
    assert "SIGKILL" not in err
    assert state.exists()
    assert not (tmp_path / "model" / "model.json").exists()


def test_commands_that_do_not_run_in_parallel_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "Start without torchrun." in Shell(tmp_path).refused("remove", "-w", "mine", "--worst", "1")


def test_only_rank_0_prints_an_error_and_only_at_the_last_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    for attempt, rank, count in (("0", "0", 0), ("1", "1", 0), ("1", "0", 1)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        monkeypatch.setenv("RANK", rank)
        result = Shell(tmp_path)("rank", "-w", "nothing")
        assert (result.code, result.err.count("does not exist")) == (2, count)
