"""Run long work as separate processes whose state is only on disk.

A job is a folder: ``job.json`` (title and arguments), ``lock`` (held by its processes while they live), ``pid``,
``progress.json``, ``stdout``, ``stderr``, ``cancel`` (present once cancelling was requested) and ``exit.json`` (exit
code). A job outlives the server that started it, and every session sees the same state. POSIX only.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from core.runtime.errors import UserError
from core.runtime.files import read_json, read_json_cached, write_json, write_text_atomically
from core.runtime.progress import PROGRESS_FILE_VARIABLE, ProgressState
from core.workspace.runner import CANCEL, DESCRIPTION, EXIT, GRACE_SECONDS, PID

Status = Literal["running", "done", "failed", "cancelled", "lost"]

REPOSITORY = Path(__file__).resolve().parents[2]

_LOCK, _PROGRESS, _STDOUT, _STDERR = "lock", "progress.json", "stdout", "stderr"
_CANCELLED_CODES = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_REFUSED_CODE = 2  # of an error in the user's input or settings
_KILLED_CODE = 128 + signal.SIGKILL
_PROGRESS_LINE = re.compile(r".*: \d+/\d+(, about .+ left)?(  .*)?")
_TAIL_BYTES = 16_384


@dataclass(frozen=True)
class Job:
    """A piece of long work; every method reads its state from disk."""

    id: str
    title: str
    args: tuple[str, ...]
    started: str
    folder: Path

    def status(self) -> Status:
        """Return its state; ``lost`` if its processes ended without an exit code (killed, or a restart)."""
        is_alive = self._is_alive()  # read first: once it is False, there is an exit code or there never will be
        code = self._exit_code()
        if code is not None:
            if code == 0:
                return "done"
            return "cancelled" if code in _CANCELLED_CODES or self._is_cancel_requested() else "failed"
        if is_alive:
            return "running"
        return "cancelled" if self._is_cancel_requested() else "lost"

    def progress(self) -> ProgressState | None:
        """Return the latest progress, or ``None`` before the first report."""
        try:
            return ProgressState(**read_json(self.folder / _PROGRESS))
        except (UserError, TypeError):
            return None

    def results(self) -> list[str]:
        """Return the lines of its standard output: the paths it wrote."""
        return [line for line in os.fsdecode(self._read(_STDOUT)).split("\n") if line]

    def is_refused(self) -> bool:
        """Return whether it failed because of its input or settings, as it would again."""
        return self._exit_code() == _REFUSED_CODE

    def error(self) -> str:
        """Return why it failed or was lost, worded for the user; empty for any other status."""
        status = self.status()
        if status == "lost":
            return "The job ended without an exit code: it was killed, or the machine restarted. Start it again."
        if status != "failed":
            return ""
        code = self._exit_code()
        if code == _KILLED_CODE:
            return "The system killed the job, most likely because memory ran out."
        message: list[str] = []
        for line in self._read(_STDERR)[-_TAIL_BYTES:].decode("utf-8", "replace").splitlines():
            if _PROGRESS_LINE.fullmatch(line) or line.startswith("Traceback (most recent call last)"):
                message.clear()
            elif line.strip():
                message.append(line)
        # Of a traceback, only the last line is meant for users; the lines before it are indented.
        indented = [number for number, line in enumerate(message) if line.startswith("  ")]
        message = message[indented[-1] + 1 :] if indented else message
        return "\n".join(message) or f"The job ended with code {code} and gave no reason."

    def _is_alive(self) -> bool:
        try:
            with suppress(FileNotFoundError), (self.folder / _LOCK).open() as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    def _exit_code(self) -> int | None:
        return int(read_json_cached(self.folder / EXIT)["code"]) if (self.folder / EXIT).exists() else None

    def _is_cancel_requested(self) -> bool:
        return (self.folder / CANCEL).exists()

    def _read(self, name: str) -> bytes:
        with suppress(FileNotFoundError):
            return (self.folder / name).read_bytes()
        return b""


class Jobs:
    """A collection of jobs in ``folder``; each runs ``command`` with its own arguments from the source root."""

    def __init__(self, folder: Path, command: Sequence[str] = (sys.executable, "-m", "core")) -> None:
        self.folder = folder.resolve()
        self.command = tuple(command)

    def start(self, title: str, args: Sequence[str]) -> Job:
        """Start a job, or return the running one that has the same arguments.

        Raises:
            UserError: the running one is being cancelled, or the process cannot be started.
        """
        args = tuple(args)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".start.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for job in self.all():
                    if job.args == args and job.status() == "running":
                        if job._is_cancel_requested():
                            raise UserError(f"“{job.title}” is still being cancelled.", "Try again in a few seconds.")
                        return job
                return self._start(title, args)
        except OSError as error:
            raise UserError(
                f"“{title}” could not be started: {error}.",
                f"Check that the disk is not full and that {self.folder} can be written.",
            ) from error

    def all(self) -> list[Job]:
        """Return every job, newest first."""
        ids = sorted((path.parent.name for path in self.folder.glob(f"*/{DESCRIPTION}")), reverse=True)
        return [self.get(job_id) for job_id in ids]

    def get(self, job_id: str) -> Job:
        """Return the job of that id; raise UserError if there is none."""
        folder = self.folder / job_id
        if not re.fullmatch(r"[\w-]+", job_id) or not (folder / DESCRIPTION).is_file():
            raise UserError(f"There is no job “{job_id}”.", "Choose one from the list of jobs.")
        description = read_json_cached(folder / DESCRIPTION)
        return Job(job_id, description["title"], tuple(description["args"]), description["started"], folder)

    def cancel(self, job_id: str) -> None:
        """Request a running job to stop, without waiting; it is killed if it still runs after ``GRACE_SECONDS``."""
        job = self.get(job_id)
        if job.status() != "running":
            return
        marker = job.folder / CANCEL
        if not marker.exists():
            write_text_atomically(marker, "", durable=False)
        # While the lock is held, the system cannot have given the group's id to other processes. A job that has not
        # written its id yet reads the marker next. Its runner does the kill; if the runner is gone, a second request
        # does.
        overdue = time.time() - marker.stat().st_mtime > GRACE_SECONDS
        with suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((job.folder / PID).read_text()), signal.SIGKILL if overdue else signal.SIGTERM)

    def _start(self, title: str, args: tuple[str, ...]) -> Job:
        now = datetime.now(UTC)
        folder = self.folder / f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        folder.mkdir()
        description = {
            "title": title,
            "args": args,
            "command": [*self.command, *args],
            "started": now.isoformat(timespec="milliseconds"),
        }
        with (
            (folder / _LOCK).open("w+") as lock,
            (folder / _STDOUT).open("wb") as stdout,
            (folder / _STDERR).open("wb") as stderr,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_json(folder / DESCRIPTION, description)
            process = subprocess.Popen(
                [sys.executable, "-m", "core.workspace.runner", str(folder)],
                cwd=REPOSITORY,
                env={**os.environ, PROGRESS_FILE_VARIABLE: str(folder / _PROGRESS)},
                stdin=lock,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie behind
        return self.get(folder.name)
