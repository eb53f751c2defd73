"""Read and write text and JSON files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from core.runtime.errors import UserError
from core.runtime.failed_downloads import check_downloaded_file
from core.runtime.replacing import replacing

HOME_VARIABLE = "TASKLENS_HOME"


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


def check_regular_file(path: Path) -> os.stat_result:
    """Return the status of a file that can be read to its end.

    Raises:
        UserError: there is none, or a folder, a pipe or a device is there, which could block or never end.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.", "Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', error)}.", "Check the path.") from error
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular_error(path, is_folder=stat.S_ISDIR(status.st_mode))
    return status


def _not_regular_error(path: Path, *, is_folder: bool = False) -> UserError:
    what = "a folder" if is_folder else "a pipe, a socket or a device"
    return UserError(f"{path} is {what}, not a file.", "Restore the file or create it again.")


def file_version(path: Path) -> tuple[int, int, int]:
    """Return the inode, the modification time (ns) and the size of a regular file: other content has another version.

    A modification time alone is not enough: the clock may have been set back, or an older file put in place.

    Raises:
        UserError: as :func:`check_regular_file`.
    """
    status = check_regular_file(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


def open_regular_file(path: Path) -> BinaryIO:
    """Open a file for reading that :func:`check_regular_file` has passed; raise UserError as it does."""
    try:
        # A pipe put in place since the check must not block.
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise _not_regular_error(path)
    return stream


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file; raise UserError if it is none (:func:`check_regular_file`) or too large."""
    check_regular_file(path)
    with open_regular_file(path) as stream:
        try:
            # Of the open file, as another one can be put in its place; reading allocates what it is asked for.
            size = os.fstat(stream.fileno()).st_size
            content = stream.read(min(size, max_bytes) + 1)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the disk.") from error
    if len(content) > max_bytes:
        raise UserError(f"{path} is larger than {max_bytes / 2**20:,.0f} MiB.", "Restore the file or create it again.")
    return content


def read_json(path: Path, *, max_bytes: int = 1 << 30, fix: str = "Restore the file or create it again.") -> Any:
    """Parse a JSON file.

    Raises:
        UserError: it is missing, larger than ``max_bytes``, no regular file or not JSON; the last ends with ``fix``.
    """
    content = read_regular_file(path, max_bytes)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # the latter for very deep nesting
        check_downloaded_file(path)
        raise UserError(f"{path} is not valid JSON: {error}.", fix) from error
