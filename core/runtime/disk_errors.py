"""Explain errors of the operating system: which file, what is wrong with it, and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from core.runtime.errors import TransientError, text_of

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Codes of a full disk, a used-up quota, and a file beyond the size that the system or ``ulimit -f`` allows."""

_FULL = ("The disk is full: {path} was not written.", "Free some space and try again.")
_FAULTY = (
    "The disk reports an error: {path} could not be read or written completely ({why}).",
    "Check the disk and its connection, then try again.",
)
_BUSY = ("{path} is in use by another program ({why}).", "Close that program, or try again in a moment.")
_LOST = ("The network drive of {path} does not respond ({why}).", "Connect it again, then try again.")
_LIMIT = ("{path} could not be opened: {why}.", "Close other programs, or raise the limit (ulimit -n), and try again.")
_LOCKS = ("{path} cannot be locked: {why}.", "Use a folder on a disk that supports locks.")
_INTERRUPTED = ("Work on {path} was interrupted ({why}).", "Try again.")
_READ_ONLY = ("{path} cannot be written: {why}.", "Choose another folder, or make this one writable.")
_ABSENT = ("{path} cannot be {verb}: {why}.", "Check the path.")
_OTHER = ("{path} cannot be {verb}: {why}.", "Check the path and its permissions, or choose another folder.")

_EXPLANATIONS = dict.fromkeys(FULL_DISK, _FULL) | {
    errno.EIO: _FAULTY,
    errno.ENXIO: _FAULTY,
    errno.ENODEV: _FAULTY,
    errno.ETXTBSY: _BUSY,
    errno.EBUSY: _BUSY,
    errno.ESTALE: _LOST,
    errno.ETIMEDOUT: _LOST,
    errno.ENOTCONN: _LOST,
    errno.EHOSTDOWN: _LOST,
    errno.EMFILE: _LIMIT,
    errno.ENFILE: _LIMIT,
    errno.ENOLCK: _LOCKS,
    errno.EINTR: _INTERRUPTED,
    errno.EROFS: _READ_ONLY,
    errno.ENOENT: _ABSENT,
}
_MOST_CODES = 4096  # of Linux; libraries put other numbers and texts into ``errno``
# Libraries that write in C or Rust, and shutil for folders, name the code only in their text.
_CODE = re.compile(r"\[errno (\d+)\]|\(os error (\d+)\)", re.IGNORECASE)


def error_code(error: Exception) -> int | None:
    """Return the operating system's code of an error, also where a library gives it only as text; None if unknown."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if isinstance(error.errno, int) and 0 <= error.errno < _MOST_CODES else None
    found = _CODE.search(text_of(error))
    return int(found[1] or found[2]) if found else None


def disk_error(error: Exception, path: Path | None = None, *, unnamed: str = "a file") -> TransientError:
    """Return an error of the operating system as a sentence with the file and what to do.

    Args:
        path: The file or folder that was being written; None: the file that ``error`` names, if any.
        unnamed: What the sentence is about if no file is known.
    """
    named = _file_of(error)
    is_written = path is not None and (named is None or path == named or path.parent in named.parents)
    code = error_code(error)
    why = os.strerror(code) if code else text_of(error) or type(error).__name__
    what, fix = _EXPLANATIONS.get(code or 0, _OTHER)
    words = {
        "path": path if is_written else named or unnamed,
        "verb": "written" if is_written else "used",
        "why": why[:1].lower() + why[1:],
    }
    sentence = what.format(**words)
    return TransientError(sentence[:1].upper() + sentence[1:] if named is None and path is None else sentence, fix)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert every error of the operating system while ``path`` is written to the TransientError that explains it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise disk_error(error, path) from error


def _file_of(error: Exception) -> Path | None:
    name = getattr(error, "filename", None)
    if error_code(error) in FULL_DISK:  # of a copy, the second name is the file that was written
        name = getattr(error, "filename2", None) or name
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
