"""The name of the program, as messages, pages and provenance give it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

GROUPS = ("review", "sets")
"""Command groups: words of the command line that are followed by a command."""
PROGRAM = "tasklens"
"""The console command; ``python -m core`` does the same."""


def command_line(args: Iterable[str | object]) -> str:
    """Return a command of the program with its arguments quoted for a shell."""
    return shlex.join([PROGRAM, *map(str, args)])


def with_workspace(args: Sequence[str], workspace: str) -> list[str]:
    """Return the arguments of a command on ``workspace``, in place of the workspace that they name, if any."""
    words = 2 if args[0] in GROUPS else 1
    rest = list(args[words:])
    kept: list[str] = []
    while rest:
        one = rest.pop(0)
        if one in ("--workspace", "-w"):
            del rest[:1]
        elif not one.startswith("--workspace=") and not (one.startswith("-w") and not one.startswith("--")):
            kept.append(one)
    return [*args[:words], "--workspace", workspace, *kept]
