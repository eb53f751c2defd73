"""How many wrong labels are still in there, worked out beside the page.

A forecast takes tenths of a second for ten thousand items, and keys must not wait for it: until a new one is there the
one before stands.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from core.review.forecast import Forecast, forecast
from core.ui.review.queue import Queue
from core.ui.review.state import Decided

DecisionState = tuple[str, str | None]
_KEPT = 24


@dataclass(frozen=True, eq=False)
class ForecastState:
    """A forecast and what it was worked out from.

    Attributes:
        forecast: None where the queue is not calibrated.
        known: By position: was the label found wrong? An unsure decision says nothing about it.
        state: Of the decisions; another one asks for another forecast.
    """

    forecast: Forecast | None
    known: dict[int, bool]
    state: bytes = b""

    @property
    def found(self) -> int:
        """Wrong labels found so far."""
        return sum(self.known.values())


_worker = ThreadPoolExecutor(1, thread_name_prefix="forecast")
_lock = threading.Lock()
_known: OrderedDict[DecisionState, ForecastState] = OrderedDict()
_busy: set[DecisionState] = set()


def latest(queue: Queue, decided: Decided, seen_by: str | None) -> ForecastState | None:
    """The newest forecast that is there; None if there is none yet. One for the decisions as they are is begun.

    Args:
        seen_by: Whose decisions ``decided`` holds; None: everybody's.
    """
    name, state = (str(queue.run.folder), seen_by), decided.fingerprint
    with _lock:
        told = _known.get(name)
        if (told is None or told.state != state) and name not in _busy:
            _busy.add(name)
            _worker.submit(_work_out, queue, decided, name, state)
    return told


def remaining_words(queue: Queue, decided: Decided, seen_by: str | None) -> str:
    """``about 37 wrong labels remain, 28 to 49 (90 % interval, estimate)``; empty where the queue is not calibrated."""
    told = latest(queue, decided, seen_by)
    return "" if told is None else _words(told)


def forecast_words(queue: Queue, decided: Decided) -> str:
    """The same, worked out now."""
    return _words(forecast_now(queue, decided))


def forecast_now(queue: Queue, decided: Decided, state: bytes = b"") -> ForecastState:
    """The forecast for the decisions as they are, worked out now."""
    known = decided.on_items.is_wrong
    return ForecastState(forecast(queue.table, known), known, state)


def _work_out(queue: Queue, decided: Decided, name: DecisionState, state: bytes) -> None:
    told = ForecastState(None, {}, state)
    try:
        told = forecast_now(queue, decided, state)
    finally:
        with _lock:
            _known[name] = told
            _known.move_to_end(name)
            while len(_known) > _KEPT:
                _known.popitem(last=False)
            _busy.discard(name)


def _words(told: ForecastState) -> str:
    if told.forecast is None:
        return ""
    left = told.forecast.remaining_errors(told.found)
    about, low, high = (round(number) for number in left)
    return f"about {about:,} wrong labels remain, {low:,} to {high:,} (90 % interval, estimate)"
