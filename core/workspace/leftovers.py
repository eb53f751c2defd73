"""Lock the unfinished runs of a workspace against other processes, and delete what nobody has resumed for long.

Beside a run ``KIND-HASH`` there may be ``.KIND-HASH`` (its unfinished steps), ``.KIND-HASH.lock`` (held while it is
computed) and ``.KIND-HASH.replaced`` (the former run, while a new one takes its place). Writers that are killed leave
files in a folder ``.NAME.writing`` (:func:`core.runtime.replacing.replacing`); earlier versions left ``.NAME.RANDOM``.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.runtime.disk_errors import disk_errors
from core.runtime.errors import TransientError
from core.runtime.replacing import ABANDONED_SECONDS, delete, delete_scratch

_OF_RUN = re.compile(r"\.(?P<name>[^.].*-[0-9a-f]{12})(\.lock|\.replaced)?")
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}(?P<old>\.old)?|\.[0-9a-f]{32}")


@contextmanager
def locked(runs: Path, name: str, *, waits: bool = False) -> Iterator[bool]:
    """Hold the lock of a run within the block; yield whether it was obtained.

    A former run is put back if the process that was to replace it was killed in between.

    Args:
        waits: Wait for another process that holds the lock.

    Raises:
        TransientError: the folder cannot be written.
    """
    path = runs / f".{name}.lock"
    descriptor = _acquire(path, waits)
    if descriptor is None:
        yield False
        return
    try:
        replaced = runs / f".{name}.replaced"
        if replaced.is_dir() and not (runs / name).is_dir():
            with disk_errors(runs / name):
                replaced.rename(runs / name)
        yield True
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # while it is held; see _acquire
        os.close(descriptor)


def _acquire(path: Path, waits: bool) -> int | None:
    """Return the descriptor of a locked file; None if another process holds it."""
    while True:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:  # no locks on this file system, or cancelled while waiting
                os.close(descriptor)
                raise
        with suppress(FileNotFoundError):
            # A lock on a file that its last holder has deleted in the meantime would lock out nobody.
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def delete_leftovers(runs: Path) -> None:
    """Delete unfinished runs that no process computes and nobody has resumed for 14 days, and what kills left there."""
    parts: dict[str, list[Path]] = {}
    for path in _entries(runs):
        if match := _OF_RUN.fullmatch(path.name):
            parts.setdefault(match["name"], []).append(path)
    for name, paths in parts.items():
        if all(map(_is_abandoned, paths)):
            with suppress(OSError, TransientError), locked(runs, name) as is_locked:  # read-only: they stay
                if is_locked and all(map(_is_abandoned, paths)):
                    for path in paths:
                        delete(path)
    delete_temporaries([runs, *(folder for folder in _entries(runs) if not folder.name.startswith("."))])


def delete_temporaries(folders: Iterable[Path]) -> None:
    """Delete what writers were killed over, directly in these folders; that of earlier versions after 14 days."""
    for folder in folders:
        delete_scratch(folder)
        for path in _entries(folder):
            match = _TEMPORARY.fullmatch(path.name)
            # A former folder whose successor is missing is the only copy.
            if match and not (match["old"] and not (folder / match["name"]).exists()) and _is_abandoned(path):
                delete(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_abandoned(path: Path) -> bool:
    """Return whether nothing in a file or folder was written for 14 days; a time in the future is no age."""
    try:
        times = [path.lstat().st_mtime, *(part.lstat().st_mtime for part in path.rglob("*"))]
    except FileNotFoundError:
        return True  # deleted in the meantime
    return time.time() - max(times) > ABANDONED_SECONDS
