"""JSON files that are looked at on every rerun of a page, parsed once for as long as they are the same file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from core.runtime.files import read_json


def read_json_cached(path: Path) -> Any:
    """What :func:`core.runtime.files.read_json` gives; all callers share it, so it must not be changed.

    Every writer here replaces a file whole (:func:`core.runtime.files.replacing`), so another content is another inode.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        found = path.stat()
    except OSError:
        return read_json(path)  # which says what is wrong
    return _read(path, (found.st_ino, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=8192)
def _read(path: Path, stamp: tuple[int, int, int]) -> Any:
    return read_json(path)
