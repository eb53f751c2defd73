"""Run long work as separate processes whose state is only on disk.

A job is a folder: ``job.json`` (title and arguments), ``lock`` (held by its processes while they live), ``pid``,
``progress.json``, ``stdout``, ``stderr``, ``cancel`` (present once cancelling was requested) and ``exit.json`` (exit
code). A job outlives the server that started it, and every session sees the same state. POSIX only.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
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
from typing import Annotated, Literal, NotRequired

from annotated_types import Ge, Le
from pydantic import Strict
from typing_extensions import TypedDict

from core.runtime.disk_errors import disk_error, disk_errors
from core.runtime.errors import TransientError, UserError
from core.runtime.files import read_regular_file, write_json, write_text_atomically
from core.runtime.progress import PROGRESS_FILE_VARIABLE, ProgressState
from core.runtime.replacing import make_folder
from core.runtime.sequence import number_after
from core.runtime.stored import OPEN, Count, Form, Text, read_stored, validate
from core.workspace.runner import CANCEL, DESCRIPTION, EXIT, GRACE_SECONDS, PID

Status = Literal["running", "done", "failed", "cancelled", "lost"]

REPOSITORY = Path(__file__).resolve().parents[2]

_LOCK, _PROGRESS, _STDOUT, _STDERR = "lock", "progress.json", "stdout", "stderr"
_CANCELLED_CODES = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_REFUSED_CODE = 2  # of an error in the user's input or settings
_KILLED_CODE = 128 + signal.SIGKILL
_PROGRESS_LINE = re.compile(r".*: \d+/\d+(, about .+ left)?(  .*)?")
_LARGEST_PID = 1 << 22  # of Linux
_TAIL_BYTES = 16_384
_OUTPUT_BYTES = 1 << 24


class JobDescription(TypedDict):
    """``job.json``; ``sequence`` counts the jobs of a folder, so that their order does not depend on a clock."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    title: Text
    args: list[Text]
    command: NotRequired[list[Text]]
    started: Text
    sequence: NotRequired[Count]


class JobExit(TypedDict):
    """``exit.json``; the code is 128 + signal of a job that a signal ended."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    code: Annotated[int, Strict(), Ge(0), Le(255)]


@dataclass(frozen=True)
class Job:
    """A piece of long work; every method reads its state from disk."""

    id: str
    title: str
    args: tuple[str, ...]
    started: str
    folder: Path
    sequence: int = 0

    def status(self) -> Status:
        """Return its state; ``lost`` if its processes ended without an exit code (killed, or a restart)."""
        is_alive = self._is_alive()  # read first: once it is False, there is an exit code or there never will be
        try:
            code = self._exit_code()
        except UserError:  # a damaged file, which error() names
            return "running" if is_alive else "failed"
        if code is not None:
            if code == 0:
                return "done"
            return "cancelled" if code in _CANCELLED_CODES or self._is_cancel_requested() else "failed"
        if is_alive:
            return "running"
        return "cancelled" if self._is_cancel_requested() else "lost"

    def progress(self) -> ProgressState | None:
        """Return the latest progress, or ``None`` before the first report, or if its file is damaged."""
        try:
            return read_stored(self.folder / _PROGRESS, ProgressState)
        except UserError:
            return None

    def results(self) -> list[str]:
        """Return the lines of its standard output: the paths it wrote."""
        return [line for line in os.fsdecode(self._read(_STDOUT)).split("\n") if line]

    def json_result(self, form: type[Form]) -> Form:
        """Return the last line of its standard output, which is JSON, as ``form``.

        Raises:
            UserError: there is none, or it is damaged.
        """
        path = self.folder / _STDOUT
        try:
            content = json.loads(self.results()[-1])
        except (IndexError, ValueError, RecursionError) as error:
            raise UserError(f"{path} does not end with a result.", "Start the job again.") from error
        return validate(content, form, path, fix="Start the job again.")

    def is_refused(self) -> bool:
        """Return whether it failed because of its input or settings, as it would again."""
        try:
            return self._exit_code() == _REFUSED_CODE
        except UserError:
            return False

    def error(self) -> str:
        """Return why it failed or was lost, worded for the user; empty for any other status."""
        status = self.status()
        if status == "lost":
            return (
                "The job ended without an exit code: it was killed, the machine restarted, or the disk was full. "
                "Start it again."
            )
        if status != "failed":
            return ""
        try:
            code = self._exit_code()
        except UserError as error:
            return f"It is unknown how the job ended: {error.what}"
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
        return "\n".join(message) or f"The job ended with code {code} and gave no reason; the disk may be full."

    def _is_alive(self) -> bool:
        try:
            with suppress(FileNotFoundError):
                descriptor = os.open(self.folder / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                finally:
                    os.close(descriptor)
        except BlockingIOError:
            return True
        return False

    def _exit_code(self) -> int | None:
        path = self.folder / EXIT
        return read_stored(path, JobExit)["code"] if path.exists() else None

    def _is_cancel_requested(self) -> bool:
        return (self.folder / CANCEL).exists()

    def _read(self, name: str) -> bytes:
        try:
            return read_regular_file(self.folder / name, _OUTPUT_BYTES)
        except UserError:
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
            with self.no_start():
                for job in self.all():
                    if job.args == args and job.status() == "running":
                        if job._is_cancel_requested():
                            raise UserError(f"“{job.title}” is still being cancelled.", "Try again in a few seconds.")
                        return job
                return self._start(title, args)
        except OSError as error:
            why = disk_error(error, self.folder)
            raise UserError(f"“{title}” could not be started: {why.what}", why.fix) from error

    @contextmanager
    def no_start(self) -> Iterator[None]:
        """Let no other process start a job during the block."""
        with disk_errors(self.folder):
            make_folder(self.folder)
            lock = (self.folder / ".start.lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def all(self) -> list[Job]:
        """Return every job, newest first; jobs whose description is damaged are left out (:meth:`damaged`)."""
        jobs = [job for job, _ in self._scan() if job is not None]
        return sorted(jobs, key=lambda job: (job.sequence, job.id), reverse=True)

    def damaged(self) -> list[UserError]:
        """Return an error for every job whose description cannot be read."""
        return [error for _, error in self._scan() if error is not None]

    def _scan(self) -> Iterator[tuple[Job | None, UserError | None]]:
        for path in sorted(self.folder.glob(f"*/{DESCRIPTION}")):
            try:
                yield self._read(path.parent), None
            except UserError as error:  # one damaged job must not hide the others
                yield None, error

    def get(self, job_id: str) -> Job:
        """Return the job of that id; raise UserError if there is none, or its description is damaged."""
        folder = self.folder / job_id
        if Path(job_id).name != job_id or not job_id or "\0" in job_id or not (folder / DESCRIPTION).exists():
            raise UserError(f"There is no job “{job_id}”.", "Choose one from the list of jobs.")
        return self._read(folder)

    def _read(self, folder: Path) -> Job:
        described = read_stored(folder / DESCRIPTION, JobDescription, fix=f"Restore the file or delete {folder}.")
        sequence = described.get("sequence", 0)
        return Job(folder.name, described["title"], tuple(described["args"]), described["started"], folder, sequence)

    def cancel(self, job_id: str) -> None:
        """Request a running job to stop, without waiting; it is killed if it still runs after ``GRACE_SECONDS``."""
        job = self.get(job_id)
        if job.status() != "running":
            return
        marker, now = job.folder / CANCEL, time.monotonic()  # which counts from the start of the machine
        if not marker.exists():
            with suppress(TransientError):  # a full disk; the signal is sent all the same
                write_text_atomically(marker, str(now), durable=False)
        # While the lock is held, the system cannot have given the group's id to other processes. A job that has not
        # written its id yet reads the marker next. Its runner does the kill; if the runner is gone, a second request
        # does.
        is_overdue = now - _number(marker, default=now) > GRACE_SECONDS
        group = _number(job.folder / PID, default=0)
        if 1 < group <= _LARGEST_PID:  # else there is no process yet, or the file is damaged
            with suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL if is_overdue else signal.SIGTERM)

    def _start(self, title: str, args: tuple[str, ...]) -> Job:
        now = datetime.now(UTC)
        folder = self.folder / f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        try:
            return self._start_in(folder, title, args, now)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _start_in(self, folder: Path, title: str, args: tuple[str, ...], now: datetime) -> Job:
        folder.mkdir()
        description = {
            "title": title,
            "args": args,
            "command": [*self.command, *args],
            "started": now.isoformat(timespec="milliseconds"),
            "sequence": number_after(job.sequence for job in self.all()),  # the lock of start() is held
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


def _number(path: Path, default: float) -> float:
    """Return the number in a file; ``default`` if there is none or it is damaged."""
    try:
        return float(read_regular_file(path, 100))
    except (UserError, ValueError):
        return default
