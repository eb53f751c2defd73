"""Run the command of one job and record how it ended, even if the process that started it has ended.

``python -m core.workspace.runner <job folder>``, started by :mod:`core.workspace.jobs` as the leader of its own
process group. Its standard input, which the command inherits, is the job's lock file, so the lock is held as long
as any process of the group lives. This module imports only the standard library, to start quickly and stay small.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

GRACE_SECONDS = 5
PID, CANCEL, EXIT, DESCRIPTION = "pid", "cancel", "exit.json", "job.json"
CANCELLED_CODE = 128 + signal.SIGTERM
UNWRITABLE_CODE = 2
_RESERVED_BYTES = 64


def run(folder: Path) -> None:
    """Run the command in ``job.json``; write its exit code (128 + signal, as shells do) to ``exit.json``.

    After SIGTERM the command has ``GRACE_SECONDS`` to end; then the whole group is killed.
    """
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        signal.alarm(GRACE_SECONDS)

    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.signal(signal.SIGTERM, stop)
    # Whoever cancels writes the marker, then reads the pid; here the pid is written, then the marker read. So at
    # least one of the two notices the other.
    try:
        _write(folder / PID, str(os.getpid()))
        _reserve(folder / EXIT)
    except OSError as error:
        print(f"{folder} cannot be written: {error.strerror}. Free some space and try again.", file=sys.stderr)
        raise SystemExit(UNWRITABLE_CODE) from None
    if (folder / CANCEL).exists():
        code = CANCELLED_CODE
    else:
        try:
            child = subprocess.Popen(json.loads((folder / DESCRIPTION).read_text())["command"])
            if stopped:  # the signal may have arrived before the child existed
                child.terminate()
            code = child.wait()
        except OSError as error:
            print(f"The command could not be started: {error}.", file=sys.stderr)
            code = 127
    signal.alarm(0)
    _write(folder / EXIT, json.dumps({"code": code if code >= 0 else 128 - code}))
    if stopped:  # the command has ended, but its child processes may not have
        os.killpg(0, signal.SIGKILL)


def _reserve(path: Path) -> None:
    """Write as much as :func:`_write` will, so that the command can fill the disk and its exit code still be saved."""
    with _temporary(path).open("w") as stream:
        stream.write(" " * _RESERVED_BYTES)
        stream.flush()
        os.fsync(stream.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _write(path: Path, text: str) -> None:
    temporary = _temporary(path)
    with temporary.open("r+" if temporary.exists() else "w") as stream:
        stream.write(text)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
