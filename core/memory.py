"""How much memory this process holds while something runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_INTERVAL = 0.05  # seconds


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
