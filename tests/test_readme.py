"""Every command of the README does what it says: those of the command line run here, in their order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
ELSEWHERE = {"make run": "Makefile", "make test": "Makefile", "python -m core demo": ".ci/run"}
"""Commands run by .ci/run rather than here, and where they stand."""


def test_every_command_is_known() -> None:
    assert [line for line in LINES if not line.startswith("python -m core ") and line not in ELSEWHERE] == []
    for line, file in ELSEWHERE.items():
        assert line in LINES
        assert line.removeprefix("make ").removeprefix("python -m ") in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.timeout(900)
def test_the_commands_run_in_their_order(tmp_path: Path) -> None:
    env = {**os.environ, "TASKLENS_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    ran = 0
    for line in LINES:
        if line in ELSEWHERE:
            continue
        command = [sys.executable, *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout.strip(), f"{line} printed no result"
        ran += 1
    assert ran >= 10
