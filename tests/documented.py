"""Runs the shell blocks of the documentation, with the commands of TaskLens in this process: no new one for each."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from core.cli.app import program
from tests.cli.shell import Shell

ROOT = Path(__file__).resolve().parents[1]
_OWN = re.compile(r"(?:torchrun .*-m core|python -m core|tasklens) ")
"""What is before the words that the command line is given."""
_CAPTURE = re.compile(r"(\w+)=\$\((.+)\)")
_EXPORT = re.compile(r"export (\w+)=(\S+)")


def check_options(line: str) -> None:
    """Have the command line take a command apart, also one for ``torchrun``, and go no further."""
    capture = _CAPTURE.fullmatch(line)
    own = _OWN.search(capture[2] if capture else line)
    assert own, line
    words, command = shlex.split(own.string[own.end() :], comments=True), program()
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


class Documented:
    """A shell in ``folder`` that knows variables, ``$(...)`` and quoting; other programs are processes of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        self.shell, self.environment = Shell(folder), dict(os.environ)
        self.environment["PYTHONPATH"] = str(ROOT)
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def block(self, block: str) -> list[str]:
        """Run every line of a block; what the last one printed."""
        printed: list[str] = []
        for line in block.replace("\\\n", " ").splitlines():
            if line.split("#")[0].strip():
                printed = self.line(line)
        return printed

    def line(self, line: str) -> list[str]:
        """Run one line; what it printed."""
        if export := _EXPORT.fullmatch(line):
            self.environment[export[1]] = export[2]
            return []
        if capture := _CAPTURE.fullmatch(line):
            self.environment[capture[1]] = "\n".join(self.line(capture[2]))
            return []
        own = _OWN.match(line)
        if own is None or line.startswith("torchrun"):
            return self.bash(line)
        # bash takes the words apart, as it would for the reader: variables, quotes and comments.
        words = self.bash(f"set -- {line[own.end() :]}\nprintf '%s\\n' \"$@\"")
        return self.shell.done(*words).out

    def bash(self, text: str) -> list[str]:
        home = {"TASKLENS_HOME": str(self.shell.folder / "home")}
        done = subprocess.run(
            ["bash", "-euc", text], env=self.environment | home, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        return done.stdout.splitlines()
