"""What a command does when its output cannot be written: a sentence and exit code 2, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.runtime.files import HOME_VARIABLE

ROOT = Path(__file__).parents[2]
PRINTS = """
import sys
from core.cli import app
app.program = lambda: lambda: print("line")
app.main()
"""


def ended(tmp_path: Path, redirections: str) -> tuple[int, str]:
    """Return the exit code and stderr of a command that prints a line, under a shell."""
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "$0" {redirections}', PRINTS],
        cwd=ROOT,
        env=os.environ | {HOME_VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_on_a_full_disk(tmp_path: Path) -> None:
    code, error = ended(tmp_path, "> /dev/full")
    assert code == 2
    assert len(error.splitlines()) == 1
    assert ended(tmp_path, "> /dev/full 2> /dev/full")[0] == 2


def test_closed_streams_and_pipes(tmp_path: Path) -> None:
    assert ended(tmp_path, ">&- 2>&-") == (0, "")
    code, error = ended(tmp_path, "| true; wait")
    assert (code, error) == (0, "")
