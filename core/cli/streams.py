"""What the program prints, when the terminal, pipe or file that it prints to cannot take it."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from core.runtime.disk_errors import disk_error
from core.runtime.errors import printable

PIPE_CLOSED = 1
"""Exit code when the reader of the output has ended, as click has it."""


def print_row(*cells: str | int) -> None:
    """Print the cells separated by tabs; names in them cannot control the terminal or end the row."""
    print(*(printable(str(cell)) for cell in cells), sep="\t")


def open_missing_streams() -> None:
    """Print to nowhere instead of to a standard stream that was closed before the program started (``2>&-``)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open while the program runs


def explain_output_error(error: OSError) -> int:
    """Return :data:`PIPE_CLOSED` if the reader of the output has ended, else raise the TransientError of ``error``."""
    discard_unwritable()
    if error.errno == errno.EPIPE and error.filename is None:
        return PIPE_CLOSED
    raise disk_error(error, unnamed="the output") from error  # files are written inside disk_errors


def discard_unwritable() -> None:
    """Drop what cannot be written to the standard streams, so that Python does not fail over it while it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _discard(stream)


def _discard(stream: TextIO) -> None:
    with suppress(OSError, ValueError):  # no descriptor: not a real file
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
        stream.flush()
