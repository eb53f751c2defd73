"""Open files that a user names, or that another file names.

Every reader of such files opens them here, so that all have the same guards: the path lies below the roots of the
dashboard (:mod:`core.runtime.roots`), symbolic links followed; it is a regular file on a disk, so that reading it
neither blocks nor has a side effect nor goes on for ever; and it is not larger than the reader's limit.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from core.runtime.errors import UserError
from core.runtime.files import check_regular_file, open_regular_file
from core.runtime.roots import check_below_roots

MAX_RATIO = 200
"""Maximum ratio of unpacked to packed size; images and tables of their names and labels are packed far less."""
ALWAYS_UNPACKED = 200_000_000
"""Bytes that a small file may unpack to at any ratio."""
_KERNEL_FOLDERS = ("/proc", "/sys")
_REGULAR = "Give the path of a file, or save the content as one."


def check_input(path: Path, max_bytes: int | None = None) -> os.stat_result:
    """Return the status of a file that may be read.

    Raises:
        UserError: the file is missing, outside the roots, no regular file, or larger than ``max_bytes``.
    """
    check_location(path)
    try:
        status = check_regular_file(path)
    except UserError as error:
        raise UserError(error.what, "Check the path." if isinstance(error.__cause__, OSError) else _REGULAR) from error
    _check_status(path, status, max_bytes)
    return status


def check_location(path: Path) -> Path:
    """Return ``path`` if it lies below the roots; raise UserError if not, or if no path has a NUL character."""
    if "\0" in str(path):
        raise UserError(f"{path} does not exist.", "Check the path.")
    return check_below_roots(path)


def open_input(path: Path, max_bytes: int | None = None) -> BinaryIO:
    """Open a file for reading; raise UserError as :func:`check_input` does."""
    check_input(path, max_bytes)
    stream = open_regular_file(path)
    try:
        _check_status(path, os.fstat(stream.fileno()), max_bytes)
    except UserError:
        stream.close()
        raise
    return stream


def read_input(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file; raise UserError as :func:`check_input` does."""
    with open_input(path, max_bytes) as stream:
        try:
            # Reading allocates what it is asked for, so do not ask for all that is allowed.
            content = stream.read(min(os.fstat(stream.fileno()).st_size, max_bytes) + 1)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the disk.") from error
    if len(content) > max_bytes:  # it has grown
        raise _size_error(path, len(content), max_bytes)
    return content


def check_unpacked_size(name: object, packed: int, unpacked: int) -> None:
    """Raise UserError if ``packed`` bytes declare to unpack to far more, as no file of images or labels does."""
    if unpacked > max(MAX_RATIO * packed, ALWAYS_UNPACKED):
        raise UserError(
            f"{name} has {packed / 1e6:.1f} MB and would unpack to {unpacked / 1e9:.1f} GB.",
            "A file of images or labels does not; if you trust it, unpack or convert it yourself.",
        )


def _check_status(path: Path, status: os.stat_result, max_bytes: int | None) -> None:
    if status.st_dev in _kernel_devices():
        raise UserError(f"{path} is a view of the operating system, not a file.", _REGULAR)
    if max_bytes is not None and status.st_size > max_bytes:
        raise _size_error(path, status.st_size, max_bytes)


def _size_error(path: Path, size: int, max_bytes: int) -> UserError:
    what = f"{path} has {size / 1e6:,.1f} MB; the maximum is {max_bytes / 1e6:,.1f} MB."
    return UserError(what, "Check that it is the right file.")


@lru_cache(maxsize=1)
def _kernel_devices() -> frozenset[int]:
    """Return the devices of file systems whose files look regular but are made up by the kernel when they are read."""
    return frozenset(Path(folder).stat().st_dev for folder in _KERNEL_FOLDERS if os.path.ismount(folder))
