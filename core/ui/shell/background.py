"""Run computations that no page waits for: one at a time in a thread, shown by a later rerun.

The dashboard starts threads nowhere else, so that no error is lost in one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

from cachetools import LRUCache

from core.runtime.errors import UserError
from core.ui.shell.guard import in_thread

_CACHED_VALUES = 512

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """A thread that runs functions one after another.

    Args:
        name: Of the thread.
        title: What is computed, as the subject of a sentence: "The forecast".
    """

    def __init__(self, name: str, title: str) -> None:
        self._pool, self._title = ThreadPoolExecutor(1, thread_name_prefix=name), title

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return the future result; its exception is always a UserError, and a bug is logged when it happens."""
        return self._pool.submit(in_thread(function, self._title), *args, **kwargs)


class BackgroundCache(Generic[Key, Value]):
    """A thread with a cache of its results. Of the requests that wait, only the last one is computed.

    Args:
        name: Of the thread.
        title: What is computed, as the subject of a sentence.
        failed: Returns the value that stands for an error; the computation is not tried again.
    """

    def __init__(self, name: str, title: str, failed: Callable[[UserError], Value]) -> None:
        self._worker, self._title = Worker(name, title), title
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
            value = in_thread(compute, self._title)()
        except UserError as error:
            value = self._failed(error)
        with self._lock:
            self._values[key] = value
            if self._requested == key:
                self._requested = None
