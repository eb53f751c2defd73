"""A shell that runs commands in this process, and what most tests of the command line begin with."""

from __future__ import annotations

import io
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from core import cli
from core.runtime.files import HOME_VARIABLE
from core.workspace.workspace import Workspace

ROOT = Path(__file__).parents[2]
TASKS = [
    "tasks",
    "--count",
    "6",
    "--ways",
    "3",
    "--shots",
    "1",
    "--queries",
    "2",
    "--heldout",
    "4",
]  # and 4 validation tasks
TRAIN = ["train", "--filters", "2", "--iterations", "3", "--polish", "0", "--device", "cpu"]
SOLVE = ["--curvature-tasks", "0", "--device", "cpu"]


@dataclass(frozen=True)
class Result:
    code: int
    out: list[str]
    err: str

    @property
    def path(self) -> Path:
        """The last line of stdout, which is the path of a result."""
        return Path(self.out[-1])


class Shell:
    """Runs commands in this process, as ``python -m core`` does, with the workspaces in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *args: str | Path) -> Result:
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        with pytest.MonkeyPatch.context() as patch, io.StringIO() as out, io.StringIO() as err:
            patch.setenv(HOME_VARIABLE, str(self.folder / "home"))
            patch.setenv("COLUMNS", "80")
            patch.setattr(sys, "argv", ["core", *map(str, args)])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                with pytest.raises(SystemExit) as ended:
                    cli.main()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
            return Result(int(ended.value.code or 0), out.getvalue().splitlines(), err.getvalue())

    def done(self, *args: str | Path) -> Result:
        result = self(*args)
        assert result.code == 0, result.err
        return result

    def refused(self, *args: str | Path) -> str:
        """Exit code 2, nothing on stdout, and one sentence or two at the end of stderr, without a traceback."""
        result = self(*args)
        assert result.code == 2, result.err
        assert result.out == []
        assert "Traceback" not in result.err
        return result.err.splitlines()[-1]


def made(folder: Path) -> Shell:
    """A shell with tasks, a model and the workspace ``mine``."""
    shell = Shell(folder)
    shell.done(*TASKS, "--noise", "tasks:0.5:0.5", "--out", folder / "tasks")
    shell.done(*TRAIN, "--tasks", folder / "tasks", "--out", folder / "model")
    shell.done("open", "--tasks", folder / "tasks", "--model", folder / "model", "-w", "mine")
    return shell


def workspace(shell: Shell) -> Workspace:
    return Workspace(shell.folder / "home" / "mine")
