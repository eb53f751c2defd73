"""The faults of ``faults.c`` for the calls that Python code makes itself: where there is no compiler.

Libraries that write from C (parquet, SQLite, safetensors) are not covered.
"""

from __future__ import annotations

import builtins
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.kinds import DELETE, END_AFTER, END_BEFORE, FOLDER, OPEN, RENAME, SYNC, WRITE

CALLS = {"mkdir": FOLDER, "rename": RENAME, "replace": RENAME, "unlink": DELETE, "remove": DELETE, "rmdir": DELETE}
KILLED = 137


class PythonFaults:
    """Fails the n-th call below a folder; see ``faults.c``."""

    def __init__(self) -> None:
        self._root, self._lock = "", threading.Lock()
        self._counted, self._first, self._last, self._code, self._action, self._kinds = 0, -1, -1, 0, 0, 0
        self._open = io.open
        for name, kind in CALLS.items():
            setattr(os, name, self._wrapped(getattr(os, name), kind))
        self._os_open, self._fsync = os.open, os.fsync
        os.open, os.fsync = self._open_descriptor, self._sync  # type: ignore[assignment]
        io.open = builtins.open = self._open_file  # type: ignore[assignment]

    def arm(self, root: Path, first: int, last: int, code: int, action: int, kinds: int) -> None:
        self._counted, self._first, self._last, self._code = 0, first, last, code
        self._action, self._kinds, self._root = action, kinds, str(root)

    def disarm(self) -> int:
        self._root = ""
        return self._counted

    def strike(self, kind: int, path: Any, call: Callable[[], Any]) -> Any:
        if not self._kinds & kind or not self._is_below(path):
            return call()
        with self._lock:
            number = self._counted
            self._counted += 1
        if not self._first <= number <= self._last:
            return call()
        if self._action == END_BEFORE:
            os._exit(KILLED)
        if self._action == END_AFTER:
            call()
            os._exit(KILLED)
        raise OSError(self._code, os.strerror(self._code), os.fspath(path) if not isinstance(path, int) else None)

    def _is_below(self, path: Any) -> bool:
        if not self._root:
            return False
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        return str(Path.cwd() / os.fsdecode(path)).startswith(self._root)

    def _wrapped(self, call: Callable[..., Any], kind: int) -> Callable[..., Any]:
        return lambda path, *args, **options: self.strike(kind, path, lambda: call(path, *args, **options))

    def _open_descriptor(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        kind = OPEN if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else 0
        return self.strike(kind, path, lambda: self._os_open(path, flags, *args, **options))

    def _sync(self, descriptor: int) -> None:
        self.strike(SYNC, descriptor, lambda: self._fsync(descriptor))

    def _open_file(self, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if isinstance(file, int) or not {*mode} & {*"wax+"} or not self._is_below(file):
            return self._open(file, mode, *args, **options)
        raw = self.strike(OPEN, file, lambda: _File(file, mode.replace("b", "").replace("t", ""), self))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        names = ("buffering", "encoding", "errors", "newline")
        given = dict(zip(names, args, strict=False)) | options
        return io.TextIOWrapper(buffered, given.get("encoding"), given.get("errors"), given.get("newline"))


class _File(io.FileIO):
    def __init__(self, file: Any, mode: str, faults: PythonFaults) -> None:
        super().__init__(file, mode)
        self._faults, self._path = faults, os.fspath(file)

    def write(self, content: Any) -> int:
        return self._faults.strike(WRITE, self._path, lambda: super(_File, self).write(content))
