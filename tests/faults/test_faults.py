"""Commands whose writes fail, or that are killed at them, lose nothing that was acknowledged and can be repeated.

``pytest tests/faults -m slow`` tries every call that changes the disk, where there is a C compiler and a dynamic linker
that preloads; the sample in the fast tests covers what Python writes itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeOnce
from tests.faults.kinds import RENAME
from tests.faults.python_faults import PythonFaults
from tests.faults.scenarios import SCENARIOS, WORKSPACE
from tests.faults.worker import MODES, make, sweep

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc") or shutil.which("gcc")
POINTS = int(os.environ.get("TASKLENS_FAULT_POINTS", "2"))
"""Faults per command and mode in the slow test; a number above all counts tries every call."""


def problems(rows: list[dict[str, Any]]) -> str:
    """Return what went wrong, a line per fault, so that a failed assertion shows it whole."""
    return "\n".join(f"{row['mode']}, call {row['point']}: {row['wrong']} {row['err']}" for row in rows if row["wrong"])


@pytest.mark.parametrize("name", ["images", "export"])
def test_a_sample_of_faults_loses_nothing(name: str, make_once: MakeOnce) -> None:
    base = make_once("faults", lambda folder: make(folder, PythonFaults, WORKSPACE))
    rows = sweep(SCENARIOS[name], ["one error", "killed"], 2, base, PythonFaults)
    assert len(rows) == 5
    assert problems(rows) == ""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux")
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", path, source, "-ldl"], check=True)
    return path


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_fault_of_a_command_loses_nothing(
    name: str, library: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp() / "faults-base"
    asked = {"library": str(library), "base": str(base), "scenarios": [name], "modes": [*MODES], "most": POINTS}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.worker", json.dumps(asked)],
        env=os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(row["point"] >= 0 for row in rows)
    assert problems(rows) == ""
    for row in rows:
        if row["point"] < 0 and row["kinds"] & ~RENAME:
            assert not unflushed(row["trace"])


def unflushed(trace: list[str]) -> list[str]:
    """Return the renames in a trace of calls whose file or folder was not flushed in the order of a durable write.

    What is not promised to survive a power failure is exempt: progress, and the steps of unfinished work.
    """
    wrong, dirty = [], set()
    calls = [line.split("\t")[1:] for line in trace]
    for index, (call, *paths) in enumerate(calls):
        if call in ("write", "truncate"):
            dirty.add(paths[0])
        elif call == "sync":
            dirty.discard(paths[0])
        elif call in ("rename", "exchange"):
            old, new = paths
            if "/memory/" in new or new.endswith("progress.json") or Path(old).name.startswith(".tmp"):
                dirty = {new if path == old else path for path in dirty}
                continue
            if old in dirty:
                wrong.append(f"renamed before it was flushed: {new}")
            later = {path for name, *rest in calls[index + 1 :] if name == "sync" for path in rest}
            if str(Path(new).parent) not in later and ".writing" not in new and not new.endswith(".replaced"):
                wrong.append(f"its folder was not flushed: {new}")
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_real_file_systems(kind: str, tmp_path: Path) -> None:
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    probe = [*namespace, "mount", "-t", "tmpfs", "none", tmp_path]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    asked = {"kind": kind, "base": str(tmp_path / "base"), "place": str(tmp_path / "place")}
    done = subprocess.run(
        [*namespace, sys.executable, "-m", "tests.faults.mounts", json.dumps(asked)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) > 10
    assert problems(rows) == ""
