"""Work that no page waits for: done beside it, for what was asked for last, and shown by a later look."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

_KEPT = 512

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BackgroundCache(Generic[Key, Value]):
    """One thread, and what it found lately. Of the questions that wait, only the last is answered.

    Args:
        name: Of the thread.
        failed: The answer where one could not be worked out; it is not tried again.
    """

    def __init__(self, name: str, failed: Callable[[Exception], Value]) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._failed, self._lock = failed, threading.Lock()
        self._known: OrderedDict[Key, Value] = OrderedDict()
        self._wanted: Key | None = None

    def get(self, key: Key, work: Callable[[], Value]) -> Value | None:
        """The answer to a question; None while it is being worked out."""
        with self._lock:
            if key in self._known:
                return self._known[key]
            if self._wanted != key:
                self._wanted = key
                self._worker.submit(self._work_out, key, work)
        return None

    def _work_out(self, key: Key, work: Callable[[], Value]) -> None:
        with self._lock:
            if self._wanted != key:
                return
        try:
            found = work()
        except Exception as error:  # of a thread that nobody waits for
            found = self._failed(error)
        with self._lock:
            self._known[key] = found
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            if self._wanted == key:
                self._wanted = None
