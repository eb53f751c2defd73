"""Parse JSON files that pages read on every rerun only once, until the file changes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from core.runtime.files import read_json


def read_json_cached(path: Path) -> Any:
    """Return what :func:`core.runtime.files.read_json` returns; callers share the object and must not modify it.

    All writers replace files as a whole (:func:`core.runtime.files.replacing`), so new content has a new inode.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        found = path.stat()
    except OSError:
        return read_json(path)  # raises the error
    return _read(path, (found.st_ino, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=8192)
def _read(path: Path, stamp: tuple[int, int, int]) -> Any:
    return read_json(path)
