"""Measure the memory of this process, and keep the allocator from returning memory that is needed again."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_INTERVAL = 0.05  # seconds
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def disable_malloc_trim() -> None:
    """Let the allocator reuse freed memory instead of returning it to the operating system.

    A pass over tasks allocates the same tensors again and again. Each page fetched from the system costs a page fault,
    which together took a fifth of the time of a pass. Only glibc has this setting.
    """
    try:
        setting = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    setting(_MMAP_THRESHOLD, 1 << 30)
    setting(_TRIM_THRESHOLD, (1 << 31) - 1)


@dataclass
class Peak:
    """A peak of resident memory, in GB."""

    gb: float = 0.0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the peak resident memory of this process during the block, 20 times per second."""
    process, peak, done = psutil.Process(), Peak(), threading.Event()

    def watch() -> None:
        while True:
            peak.gb = max(peak.gb, process.memory_info().rss / 1e9)
            if done.wait(_INTERVAL):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
