"""How much memory this process holds while something runs, and that it does not fetch the same memory again."""

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
    """Let the allocator keep what was freed for what is allocated next, instead of giving it back to the system.

    A pass over tasks allocates the same tensors again and again; fetched from the system, every page of each comes
    with an interrupt, which took a fifth of the time of a pass. Only glibc has such a setting.
    """
    try:
        setting = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    setting(_MMAP_THRESHOLD, 1 << 30)
    setting(_TRIM_THRESHOLD, (1 << 31) - 1)


@dataclass
class Peak:
    """Most memory held so far, in GB."""

    gb: float = 0.0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch the resident memory of this process, twenty times a second."""
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
