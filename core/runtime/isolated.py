"""Start calls that run in processes of their own (:mod:`core.runtime.fork_server`), each with limits, and follow them.

For reading what users name: a file can be made to take hours or all memory, a network folder can hang. The server only
looks at the state, so none of that holds up other users.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.runtime.errors import TransientError, UserError
from core.runtime.files import read_json
from core.runtime.fork_server import PROGRESS, RESULT
from core.runtime.progress import ProgressState, format_duration
from core.runtime.stored import read_stored

REPOSITORY = Path(__file__).resolve().parents[2]
UNWANTED_SECONDS = 3.0
"""A call ends once nobody has wanted it for so long: browsers that lose the connection come back within a second."""
_TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Limits:
    """The limits of one call; it is ended if it exceeds them.

    Attributes:
        seconds: Of running time.
        gb: Of memory (2^30 bytes) beside the imported modules and mapped files.
    """

    seconds: float = 600.0
    gb: float = 4.0


class IsolatedCall:
    """A call that runs, or has ended."""

    def __init__(self, call_id: str, limits: Limits, is_wanted: Callable[[], bool]) -> None:
        self.id, self.limits, self.is_wanted = call_id, limits, is_wanted
        self.started = self.last_wanted = time.monotonic()
        self.folder: Path | None = None
        self._how = ""
        self._ended = threading.Event()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it ends, at most so long; return whether it has ended."""
        return self._ended.wait(seconds)

    def progress(self) -> ProgressState | None:
        """Return its latest progress, or None before the first report, or if its file is damaged."""
        try:
            return read_stored(self.folder / PROGRESS, ProgressState) if self.folder else None
        except UserError:
            return None

    def result(self) -> Any:
        """Return the value of a call that has ended, as JSON has it.

        Raises:
            UserError: the call raised it, or was ended because of a limit, or failed.
        """
        match self._how:
            case "time":
                what = f"Reading took longer than {format_duration(self.limits.seconds)} and was ended."
                raise TransientError(what, "Check that the disk answers. The command line has no limit.")
            case "memory":
                raise self._memory_error()
            case "stopped":
                raise TransientError("Reading was cancelled.", "Start it again.")
            case "done":
                result = read_json(Path(self.folder or ".") / RESULT)
            case _:
                raise TransientError("The process that reads ended without a result.", "Try again.")
        match result:
            case {"value": value}:
                return value
            case {"what": what, "fix": fix, "transient": is_transient}:
                raise (TransientError if is_transient else UserError)(what, fix)
            case {"unexpected": reason}:
                raise UserError(f"Reading failed: {reason}.", "If the input is as documented, report this as a fault.")
        raise self._memory_error()

    def _memory_error(self) -> UserError:
        what = f"Reading needs more than {self.limits.gb:g} GB of memory and was ended."
        return UserError(what, "Use smaller files. The command line has no such limit.")

    def end(self, how: str) -> None:
        """Record how it ended: ``done``, ``died``, ``time``, ``memory`` or ``stopped``."""
        if self.is_running:
            self._how = how
            self._ended.set()


class IsolatedCalls:
    """The calls of one module (``CALLS``), run by a process that is started with the first and that ends with this one.

    Thread-safe.
    """

    def __init__(self, module: str) -> None:
        self._command = (sys.executable, "-m", "core.runtime.fork_server", module)
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._calls: dict[str, weakref.ref[IsolatedCall]] = {}

    def prepare(self) -> None:
        """Start the process that imports what the calls need, unless it runs, without waiting for it.

        Raises:
            TransientError: it cannot be started.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            try:
                self._process = subprocess.Popen(
                    self._command,
                    cwd=REPOSITORY,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                    start_new_session=True,
                )
            except OSError as error:
                raise TransientError(f"No further process can be started: {error}.", "Try again later.") from error
            threading.Thread(target=self._follow, args=(self._process,), daemon=True, name="isolated-calls").start()

    def start(
        self,
        name: str,
        arguments: dict[str, Any],
        *,
        limits: Limits | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> IsolatedCall:
        """Start a call of a function by its name in ``CALLS``.

        Args:
            arguments: As JSON can have them.
            is_wanted: Asked about once per second; the call ends :data:`UNWANTED_SECONDS` after it was last True.

        Raises:
            TransientError: no process can be started.
        """
        call = IsolatedCall(secrets.token_hex(8), limits or Limits(), is_wanted)
        environment = {name: value for name, value in os.environ.items() if name.startswith("TASKLENS_")}
        request = {"do": "start", "id": call.id, "call": name, "arguments": arguments, "environment": environment}
        with self._lock:
            self.prepare()
            self._calls[call.id] = weakref.ref(call)
            self._send({**request, "seconds": call.limits.seconds, "gb": call.limits.gb})
        # What nobody refers to any more, as the session that started it is gone, is ended and deleted.
        weakref.finalize(call, self._forget, call.id).atexit = False
        return call

    def cancel(self, call: IsolatedCall) -> None:
        """End a call, without waiting."""
        call.end("stopped")
        self._send({"do": "stop", "id": call.id})

    def _forget(self, call_id: str) -> None:
        self._calls.pop(call_id, None)
        self._send({"do": "stop", "id": call_id})
        self._send({"do": "forget", "id": call_id})

    def _send(self, request: dict[str, Any]) -> None:
        with self._lock, suppress(OSError):  # a process that has ended: its follower ends the calls
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Read the reports of the process and end calls that nobody wants, until the process ends."""
        try:
            self._read_reports(process)
        except Exception:
            traceback.print_exc()  # on the server's log; those who wait are told below
        finally:
            process.kill()
            process.wait()
            if self._folder is not None:  # it deletes the folder itself, unless it was killed
                shutil.rmtree(self._folder, ignore_errors=True)
            with self._lock:
                if self._process is process:
                    self._process = None
                    for call in self._present():
                        call.end("died")

    def _read_reports(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        unread = b""
        while True:
            if select.select([process.stdout], [], [], _TICK_SECONDS)[0]:
                if not (chunk := os.read(process.stdout.fileno(), 1 << 16)):
                    return
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    self._record(json.loads(line))
            self._cancel_unwanted()

    def _record(self, report: dict[str, Any]) -> None:
        reference = self._calls.get(report["id"])
        if reference is None or (call := reference()) is None:
            return
        if "started" in report:
            call.folder = Path(report["started"])
            self._folder = call.folder.parent
        else:
            call.end(report["ended"])

    def _cancel_unwanted(self) -> None:
        now = time.monotonic()
        for call in self._present():
            if not call.is_running or call.is_wanted():
                call.last_wanted = now
            elif now - call.last_wanted > UNWANTED_SECONDS:
                self.cancel(call)

    def _present(self) -> list[IsolatedCall]:
        return [call for reference in list(self._calls.values()) if (call := reference()) is not None]
