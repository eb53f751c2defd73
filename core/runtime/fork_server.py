"""Run each call in its own process, forked from one that has already imported what the calls need.

``python -m core.runtime.fork_server MODULE``, started by :mod:`core.runtime.isolated`. ``MODULE.CALLS`` maps names to
functions of ``(arguments, folder, progress)`` whose value is JSON; they may write more files to the folder. Importing
PyTorch takes seconds, a fork milliseconds. This process imports and then only waits: it computes nothing, so that no
thread pool exists that a fork would lose.

Requests are lines of JSON on stdin: ``start`` (id, call, arguments, environment, seconds, gb), ``stop`` (id) and
``forget`` (id: delete its folder). Reports are lines on stdout: the folder of a call that starts, and how one ended.
Once stdin ends, because the server ended in any way, all calls are killed and their folders deleted. POSIX only.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from core.runtime.errors import TransientError, UserError
from core.runtime.files import write_text_atomically
from core.runtime.progress import LiveProgress, Progress

Call = Callable[[dict[str, Any], Path, Progress], Any]
PROGRESS, RESULT, STDERR = "progress.json", "result.json", "stderr"
NICENESS, _NICE_AFTER_SECONDS = 10, 1.0
"""What takes longer than a second gives way to everything else, above all to the keys of reviewers."""
_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_GB = 1 << 30


@dataclass
class _Running:
    pid: int
    started: float
    deadline: float
    limit_bytes: int


class _ForkServer:
    """Starts requested calls, at most one per core at a time, and ends those that exceed a limit."""

    def __init__(self, calls: Mapping[str, Call], folder: Path) -> None:
        self.calls, self.folder = calls, folder
        self.running: dict[str, _Running] = {}
        self.waiting: deque[dict[str, Any]] = deque()
        self.killed: set[int] = set()  # a process that waits for a hung disk ends only when the disk answers
        self.slots = max(2, os.cpu_count() or 1)

    def serve(self) -> None:
        """Serve requests until stdin ends."""
        ended, notify = os.pipe()
        for end in (ended, notify):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(notify)
        unread = b""
        try:
            while True:
                ready, _, _ = select.select([0, ended], [], [], _POLL_SECONDS if self.running else None)
                if ended in ready:
                    os.read(ended, 4096)
                if 0 in ready:
                    if not (chunk := os.read(0, 1 << 16)):
                        return
                    *lines, unread = (unread + chunk).split(b"\n")
                    for line in lines:
                        self._handle(json.loads(line))
                self._reap()
                self._check_limits()
                while self.waiting and len(self.running) < self.slots:
                    self._start(self.waiting.popleft())
        finally:
            for call in self.running.values():
                _kill(call.pid)

    def _handle(self, request: dict[str, Any]) -> None:
        match request:
            case {"do": "start"}:
                self.waiting.append(request)
            case {"do": "stop", "id": call_id}:
                waiting = [one for one in self.waiting if one["id"] == call_id]
                for one in waiting:
                    self.waiting.remove(one)
                if waiting or call_id in self.running:
                    self._end(call_id, "stopped")
            case {"do": "forget", "id": call_id}:
                shutil.rmtree(self.folder / call_id, ignore_errors=True)

    def _start(self, request: dict[str, Any]) -> None:
        folder = self.folder / request["id"]
        folder.mkdir()
        if pid := os.fork():
            _report({"id": request["id"], "started": str(folder)})
            now = time.monotonic()
            self.running[request["id"]] = _Running(pid, now, now + request["seconds"], int(request["gb"] * _GB))
            return
        try:
            _run(self.calls, request, folder)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                self.killed.discard(pid)
                for call_id, call in list(self.running.items()):
                    if call.pid == pid:
                        self._end(call_id, "done" if status == 0 else "died", is_reaped=True)

    def _check_limits(self) -> None:
        now = time.monotonic()
        for call_id, call in list(self.running.items()):
            if now > call.started + _NICE_AFTER_SECONDS:
                _give_way(call.pid)
            if now > call.deadline:
                self._end(call_id, "time")
            elif _private_bytes(call.pid) > call.limit_bytes:
                self._end(call_id, "memory")

    def _end(self, call_id: str, how: str, *, is_reaped: bool = False) -> None:
        call = self.running.pop(call_id, None)
        if call is not None:
            _kill(call.pid)  # also what the call started itself
            if not is_reaped:
                self.killed.add(call.pid)
        _report({"id": call_id, "ended": how})


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # a fork that has no group of its own yet, or whose leader has ended
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
            return


def _give_way(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if os.getpriority(os.PRIO_PROCESS, pid) < NICENESS:
            os.setpriority(os.PRIO_PGRP, pid, NICENESS)  # every thread, and what it has started


def _private_bytes(pid: int) -> int:
    """Return the memory of a process without the files that it maps, where the system tells these apart; else all."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return memory.rss - getattr(memory, "shared", 0)


def _report(value: dict[str, Any]) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


def _run(calls: Mapping[str, Call], request: dict[str, Any], folder: Path) -> None:
    """Run a call in this process, a fresh fork, and write its value or its error to the result file."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _die_with_parent()
    signal.alarm(int(request["seconds"]) + 60)  # where a system cannot do that
    null = os.open(os.devnull, os.O_RDONLY)
    errors = os.open(folder / STDERR, os.O_WRONLY | os.O_CREAT, 0o600)
    for source, target in ((null, 0), (errors, 1), (errors, 2)):
        os.dup2(source, target)
    for name in [name for name in os.environ if name.startswith("TASKLENS_")]:
        del os.environ[name]
    os.environ.update(request["environment"])
    _limit_memory(request["gb"])
    try:
        result = {"value": calls[request["call"]](request["arguments"], folder, LiveProgress(file=folder / PROGRESS))}
    except UserError as error:
        result = {"what": error.what, "fix": error.fix, "transient": isinstance(error, TransientError)}
    except MemoryError:
        result = {"out_of_memory": True}
    except Exception as error:
        traceback.print_exc()
        result = {"unexpected": f"{type(error).__name__}: {error}"[:500]}
    write_text_atomically(folder / RESULT, json.dumps(result), durable=False)
    os._exit(0)


def _die_with_parent() -> None:
    """Let Linux kill this process when the fork server ends."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(gb: float) -> None:
    """Limit the memory that this process may add; exceeding it raises MemoryError. Mapped files do not count."""
    used = getattr(psutil.Process().memory_info(), "data", 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(ValueError, OSError):  # a lower limit of the system applies
        resource.setrlimit(resource.RLIMIT_DATA, (used + int(gb * _GB), hard))


def main(module: str) -> None:
    """Import the calls, then serve them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    calls = importlib.import_module(module).CALLS
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages of all imported objects
    with tempfile.TemporaryDirectory(prefix="tasklens-calls-", ignore_cleanup_errors=True) as folder:
        _ForkServer(calls, Path(folder)).serve()


if __name__ == "__main__":
    main(sys.argv[1])
