"""Write files so that a kill or a full disk never leaves half of one, and hash content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from core.runtime.errors import TransientError, UserError
from core.runtime.failed_downloads import check_downloaded_file

HOME_VARIABLE = "TASKLENS_HOME"

_BLOCK_BYTES = 1 << 22
_UMASK = os.umask(0)
os.umask(_UMASK)


def home() -> Path:
    """Return the folder of workspaces and image sets: ``TASKLENS_HOME`` if set, else the user's data folder."""
    given = os.environ.get(HOME_VARIABLE)
    return Path(given).resolve() if given else platformdirs.user_data_path("tasklens")


def library() -> Path:
    """Return the folder of image sets and of the tasks and models that the dashboard creates."""
    return home() / "library"


# No permission, or a file where a folder should be, or a folder where a file should be.
_NOT_WRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EBUSY,
)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert an ``OSError`` to a TransientError if the disk is full or ``path`` cannot be written; let others pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TransientError(
                f"The disk is full: {path} was not written.", "Free some space and try again."
            ) from error
        if error.errno in _NOT_WRITABLE:
            what = f"{path} cannot be written: {error.strerror}."
            raise TransientError(what, "Choose another folder.") from error
        raise


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that atomically replaces ``path`` on success.

    Raises:
        TransientError: the disk is full or the folder cannot be written; ``path`` is then unchanged.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}"
        try:
            yield temporary
            temporary.chmod(0o666 & ~_UMASK)  # some writers make files that only their owner may read
            if durable:
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_export_folder(out: Path, marker: str) -> None:
    """Raise UserError unless ``out`` is absent, empty, or an earlier export, which contains the file ``marker``."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file.", "Choose a folder.")
    if out.exists() and any(out.iterdir()) and not (out / marker).exists():
        raise UserError(f"{out} is not empty and not an earlier export.", "Choose another folder.")


@contextmanager
def replacing_folder(path: Path, replaced_names: Container[str]) -> Iterator[Path]:
    """Yield a new folder beside ``path`` that replaces ``path`` on success, whether or not it exists already.

    Files of the old folder are kept unless their name is one of ``replaced_names``.

    Raises:
        TransientError: the disk is full or the folder cannot be written; ``path`` is then unchanged.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = secrets.token_hex(6)
        new, old = path.parent / f".{path.name}.{mark}", path.parent / f".{path.name}.{mark}.old"
        try:
            new.mkdir()
            yield new
            if path.exists():
                path.rename(old)  # two folders cannot be swapped atomically; this way one of them is always complete
            try:
                new.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
        if old.exists():
            for other in old.iterdir():
                if other.name not in replaced_names:
                    other.rename(path / other.name)
            shutil.rmtree(old, ignore_errors=True)


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
