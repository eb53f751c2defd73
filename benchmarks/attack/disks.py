"""Fail or kill commands at the calls that change the disk: full, read-only, or failing once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.scenarios import SCENARIOS
from tests.faults.worker import MODES

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "faults" / "faults.c"


def attack_disks(points: int) -> tuple[int, list[str]]:
    """Return the number of faults, at most ``points`` per command and mode, and what was wrong afterwards.

    Raises:
        SystemExit: there is no C compiler for the library that makes the faults, or no Linux that preloads it.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        raise SystemExit("Faults of disks need Linux and a C compiler.")
    with tempfile.TemporaryDirectory() as temporary:
        library = Path(temporary) / "faults.so"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        asked = {"library": str(library), "base": str(Path(temporary) / "base"), "most": points}
        asked |= {"scenarios": [*SCENARIOS], "modes": [*MODES]}
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.worker", json.dumps(asked)],
            env=os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        )
    rows: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [f"{row['scenario']}, {row['mode']}, call {row['point']}: {row['wrong']}" for row in rows if row["wrong"]]
    return sum(row["point"] >= 0 for row in rows), wrong
