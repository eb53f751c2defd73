"""The name of the program, as messages, pages and provenance give it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

PROGRAM = "tasklens"
"""The console command; ``python -m core`` does the same."""


def command_line(args: Iterable[str | object]) -> str:
    """Return a command of the program with its arguments quoted for a shell."""
    return shlex.join([PROGRAM, *map(str, args)])
