"""Calls for test_isolated.py, in a module that is quick to import."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from core.runtime.errors import TransientError, UserError
from core.runtime.progress import Progress


def echo(arguments: dict[str, Any], folder: Path, progress: Progress) -> Any:
    print("on stdout, which must not disturb the protocol")
    (folder / "file").write_text(arguments.get("text", ""))
    names = ("TASKLENS_ONE", "TASKLENS_TWO")
    return {**arguments, "environment": {name: os.environ[name] for name in names if name in os.environ}}


def refuse(arguments: dict[str, Any], folder: Path, progress: Progress) -> Any:
    raise (TransientError if arguments["transient"] else UserError)("what", "fix")


def crash(arguments: dict[str, Any], folder: Path, progress: Progress) -> Any:
    raise ZeroDivisionError("no such number")


def leave(arguments: dict[str, Any], folder: Path, progress: Progress) -> Any:
    os._exit(3)


def hang(arguments: dict[str, Any], folder: Path, progress: Progress) -> Any:
    """Wait for ever, with a process of its own that does too; the pids of both are in the file ``pids``."""
    progress.stage("hanging", 10, done=3)
    child = subprocess.Popen(["sleep", "1000"])
    Path(arguments["pids"]).write_text(f"{os.getpid()} {child.pid}")
    Path(arguments["fifo"]).read_bytes() if "fifo" in arguments else time.sleep(1000)


def allocate(arguments: dict[str, Any], folder: Path, progress: Progress) -> Any:
    return len([bytearray(b"x" * (1 << 24)) for _ in range(arguments["times"])])


CALLS = {"echo": echo, "refuse": refuse, "crash": crash, "leave": leave, "hang": hang, "allocate": allocate}
