"""Number what is added to a folder, so that its order does not depend on a clock that may be set back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError
from core.runtime.replacing import make_folder

LARGEST = 2**63 - 1
"""The largest number that a file may hold; entries with it are ordered by their times."""


@contextmanager
def next_number(folder: Path, present: Callable[[], Iterable[int]]) -> Iterator[int]:
    """Yield :func:`number_after` those that are present; nobody else gets one while the block runs.

    Within the block, write the number to where ``present`` reads it. The numbers of what is deleted may be given again.

    Args:
        folder: The folder whose entries are numbered; it is locked meanwhile, where that is possible.
        present: Reads the numbers of all entries, 0 for those of versions that gave none.
    """
    with disk_errors(folder):
        make_folder(folder)
    with ExitStack() as stack:
        # A file system without locks, or a folder that may be used but not listed, as a parent of the user's folder
        # can be; entries of equal numbers are ordered by their times.
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield number_after(present())


def number_after(present: Iterable[int]) -> int:
    """Return one more than the largest number, at most :data:`LARGEST`.

    A file may hold any number, and the largest one must not keep others from being added.
    """
    return min(1 + max(present, default=0), LARGEST)


def number_of(read: Callable[[], int]) -> int:
    """Return a number that ``read`` reads from a file; 0 if the file is damaged."""
    try:
        return read()
    except UserError:
        return 0
