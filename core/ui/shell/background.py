"""Run computations that no page waits for: one at a time in a thread, shown by a later rerun."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from cachetools import LRUCache

_CACHED_VALUES = 512

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BackgroundCache(Generic[Key, Value]):
    """A thread with a cache of its results. Of the requests that wait, only the last one is computed.

    ``failed`` returns the value that stands for an exception; the computation is not tried again.
    """

    def __init__(self, name: str, failed: Callable[[Exception], Value]) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._failed, self._lock = failed, threading.Lock()
        self._values: LRUCache[Key, Value] = LRUCache(_CACHED_VALUES)
        self._requested: Key | None = None

    def get(self, key: Key, compute: Callable[[], Value]) -> Value | None:
        """Return the value for a key; None while it is being computed."""
        with self._lock:
            if key in self._values:
                return self._values[key]
            if self._requested != key:
                self._requested = key
                self._worker.submit(self._compute, key, compute)
        return None

    def _compute(self, key: Key, compute: Callable[[], Value]) -> None:
        with self._lock:
            if self._requested != key:
                return
        try:
            value = compute()
        except Exception as error:  # it would be lost in the thread
            value = self._failed(error)
        with self._lock:
            self._values[key] = value
            if self._requested == key:
                self._requested = None
