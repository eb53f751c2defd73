"""Read and write text and JSON files, and hash content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from core.runtime.errors import UserError
from core.runtime.failed_downloads import check_downloaded_file
from core.runtime.replacing import replacing

HOME_VARIABLE = "TASKLENS_HOME"

_BLOCK_BYTES = 1 << 22


def home() -> Path:
    """Return the folder of workspaces and image sets: ``TASKLENS_HOME`` if set, else the user's data folder."""
    given = os.environ.get(HOME_VARIABLE)
    return Path(given).resolve() if given else platformdirs.user_data_path("tasklens")


def library() -> Path:
    """Return the folder of image sets and of the tasks and models that the dashboard creates."""
    return home() / "library"


def write_text_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a UTF-8 text file by replacing it as a whole."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented and with sorted keys, by replacing it as a whole."""
    write_text_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file; raise UserError if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.", "Check the path.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, RecursionError) as error:  # the latter for very deep nesting
        check_downloaded_file(path)
        raise UserError(f"{path} is not valid JSON: {error}.", "Restore the file or create it again.") from error


def check_format(description: Any, path: Path, expected: int) -> None:
    """Raise UserError if a description that was read from ``path`` has another format than ``expected``."""
    if description["format"] != expected:
        raise UserError(f"{path} has format {description['format']}, not {expected}.", "Update TaskLens.")


def read_json_cached(path: Path) -> Any:
    """Return what :func:`read_json` returns, parsed only once until the file changes.

    Callers share the object and must not modify it. All writers replace files as a whole (:func:`replacing`), so new
    content has a new inode.
    """
    try:
        state = path.stat()
    except OSError:
        return read_json(path)  # raises the error
    return _read_json_version(path, (state.st_ino, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=8192)
def _read_json_version(path: Path, version: tuple[int, int, int]) -> Any:
    return read_json(path)


def content_hash(*parts: Any) -> str:
    """Return the SHA-256 (64 hex digits) of arrays, strings, bytes and JSON-serialisable values, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray | ArrayFile):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            for block in part.blocks() if isinstance(part, ArrayFile) else [np.ascontiguousarray(part).data]:
                digest.update(block)
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\x00")
    return digest.hexdigest()


@dataclass(frozen=True)
class ArrayFile:
    """A C-ordered array at the end of a file, which :func:`content_hash` reads in blocks rather than whole."""

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes of the array in blocks."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            while block := stream.read(_BLOCK_BYTES):
                yield block
