"""Long work as separate processes whose state is on disk only.

A job is a folder: ``job.json`` (what it is), ``lock`` (held by its processes while they live), ``pid``,
``progress.json``, ``stdout``, ``stderr``, ``cancel`` (somebody asked for it) and ``exit.json`` (how it ended).
It survives the server that started it, and every session sees the same. POSIX only.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from core.errors import UserError
from core.files import read_json, write_json, write_text_atomically
from core.progress import PROGRESS_FILE_VARIABLE, ProgressState
from core.workspace.parsed import parsed
from core.workspace.runner import CANCEL, DESCRIPTION, EXIT, GRACE_SECONDS, PID

Status = Literal["running", "done", "failed", "cancelled", "lost"]

REPOSITORY = Path(__file__).resolve().parents[2]

_LOCK, _PROGRESS, _STDOUT, _STDERR = "lock", "progress.json", "stdout", "stderr"
_CANCELLED_CODES = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_KILLED_CODE = 128 + signal.SIGKILL
_PROGRESS_LINE = re.compile(r".*: \d+/\d+(, about .+ left)?(  .*)?")
_TAIL_BYTES = 16_384


@dataclass(frozen=True)
class Job:
    """One piece of long work; every method looks at the disk afresh."""

    id: str
    title: str
    args: tuple[str, ...]
    started: str
    folder: Path

    def status(self) -> Status:
        """``lost``: its processes are gone and nobody recorded how it ended (killed, or the machine restarted)."""
        alive = self._alive()  # asked first: once it is False, there is an exit code or there never will be
        code = self._exit_code()
        if code is not None:
            if code == 0:
                return "done"
            return "cancelled" if code in _CANCELLED_CODES or self._cancel_asked() else "failed"
        if alive:
            return "running"
        return "cancelled" if self._cancel_asked() else "lost"

    def progress(self) -> ProgressState | None:
        """How far it is; ``None`` if it has not said anything yet."""
        try:
            return ProgressState(**read_json(self.folder / _PROGRESS))
        except (UserError, TypeError):
            return None

    def results(self) -> list[str]:
        """The lines of its standard output: the paths it made."""
        return [line for line in os.fsdecode(self._read(_STDOUT)).split("\n") if line]

    def error(self) -> str:
        """Why it failed or was lost, in words for the user; empty for any other status."""
        status = self.status()
        if status == "lost":
            return "It ended without a word: it was killed, or the machine restarted. Start it again."
        if status != "failed":
            return ""
        code = self._exit_code()
        if code == _KILLED_CODE:
            return "It was killed by the system, most likely because memory ran out."
        said: list[str] = []
        for line in self._read(_STDERR)[-_TAIL_BYTES:].decode("utf-8", "replace").splitlines():
            if _PROGRESS_LINE.fullmatch(line) or line.startswith("Traceback (most recent call last)"):
                said.clear()
            elif line.strip():
                said.append(line)
        # Of a traceback, only its last line is meant for people; its other lines are indented.
        indented = [number for number, line in enumerate(said) if line.startswith("  ")]
        said = said[indented[-1] + 1 :] if indented else said
        return "\n".join(said) or f"It ended with code {code} and gave no reason."

    def _alive(self) -> bool:
        try:
            with (self.folder / _LOCK).open() as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def _exit_code(self) -> int | None:
        return int(parsed(self.folder / EXIT)["code"]) if (self.folder / EXIT).exists() else None

    def _cancel_asked(self) -> bool:
        return (self.folder / CANCEL).exists()

    def _read(self, name: str) -> bytes:
        with suppress(FileNotFoundError):
            return (self.folder / name).read_bytes()
        return b""


class Jobs:
    """The jobs in ``folder``; each runs ``command`` followed by its own arguments, from the repository's root."""

    def __init__(self, folder: Path, command: Sequence[str] = (sys.executable, "-m", "core")) -> None:
        self.folder = folder.resolve()
        self.command = tuple(command)

    def start(self, title: str, args: Sequence[str]) -> Job:
        """Start a job, or return the running one that has the very same arguments.

        Raises:
            UserError: that one is just being cancelled, or the process cannot be started.
        """
        args = tuple(args)
        try:
            with self._one_starter():
                for job in self.all():
                    if job.args == args and job.status() == "running":
                        if job._cancel_asked():
                            raise UserError(f"“{job.title}” is still being cancelled.", "Try again in a few seconds.")
                        return job
                return self._start(title, args)
        except OSError as error:
            raise UserError(
                f"“{title}” could not be started: {error}.",
                f"Check that the disk is not full and that {self.folder} can be written.",
            ) from error

    def all(self) -> list[Job]:
        """Every job, newest first."""
        ids = sorted((path.parent.name for path in self.folder.glob(f"*/{DESCRIPTION}")), reverse=True)
        return [self.get(job_id) for job_id in ids]

    def get(self, job_id: str) -> Job:
        """The job of that id.

        Raises:
            UserError: there is none.
        """
        folder = self.folder / job_id
        if not re.fullmatch(r"[\w-]+", job_id) or not (folder / DESCRIPTION).is_file():
            raise UserError(f"There is no job “{job_id}”.", "Choose one from the list of jobs.")
        told = parsed(folder / DESCRIPTION)
        return Job(job_id, told["title"], tuple(told["args"]), told["started"], folder)

    def cancel(self, job_id: str) -> None:
        """Ask a running job to stop; it is killed if it still runs after ``GRACE_SECONDS``. Does not wait."""
        job = self.get(job_id)
        if job.status() != "running":
            return
        marker = job.folder / CANCEL
        if not marker.exists():
            write_text_atomically(marker, "", durable=False)
        # While the lock is held, the id of the group cannot have passed to other processes. A job that has
        # not written it yet looks for the marker next. Its runner sees to the kill; if that is gone, ask twice.
        overdue = time.time() - marker.stat().st_mtime > GRACE_SECONDS
        with suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((job.folder / PID).read_text()), signal.SIGKILL if overdue else signal.SIGTERM)

    def _start(self, title: str, args: tuple[str, ...]) -> Job:
        now = datetime.now(UTC)
        folder = self.folder / f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        folder.mkdir()
        told = {
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
            write_json(folder / DESCRIPTION, told)
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

    @contextmanager
    def _one_starter(self) -> Iterator[None]:
        """Held by one thread of one process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".start.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
