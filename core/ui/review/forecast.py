"""Compute the forecast of remaining label errors in the background.

A forecast takes tenths of a second for ten thousand items, and key presses must not wait for it: until a new one is
ready, the page shows the previous one.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from cachetools import LRUCache

from core.review.forecast import Forecast, forecast
from core.review.review_queue import Queue
from core.review.review_state import ReviewState
from core.runtime.errors import UserError
from core.ui.shell.background import Worker

_CACHED_FORECASTS = 24


@dataclass(frozen=True, eq=False)
class ForecastState:
    """A forecast and the decisions that it follows.

    Attributes:
        forecast: None: the queue is not calibrated, or the computation failed.
        fault: Why it failed.
    """

    forecast: Forecast | None
    decisions: ReviewState
    fault: UserError | None = None


_worker = Worker("forecast", "The forecast")
_lock = threading.Lock()
_states: LRUCache[tuple[str, str | None], ForecastState] = LRUCache(_CACHED_FORECASTS)
"""By folder of the queue, and the reviewer whose decisions count (None: those of all reviewers)."""
_running: set[tuple[str, str | None]] = set()


def latest_forecast(queue: Queue, state: ReviewState, seen_by: str | None) -> ForecastState | None:
    """Return the newest forecast that is ready, or None; start one for the present decisions where it is older.

    Args:
        seen_by: The reviewer whose decisions ``state`` holds; None: all reviewers.
    """
    key = (str(queue.folder), seen_by)
    with _lock:
        newest = _states.get(key)
        is_needed = (newest is None or newest.decisions.fingerprint != state.fingerprint) and key not in _running
        if is_needed:
            _running.add(key)
    if is_needed:  # outside the lock, as what is added to a future that has ended already is called at once
        _worker.submit(forecast_now, queue, state).add_done_callback(partial(_store, key, state))
    return newest


def forecast_now(queue: Queue, state: ReviewState) -> ForecastState:
    """Return the forecast for the present decisions, computed in this thread."""
    return ForecastState(forecast(queue.table, state.is_wrong), state)


def forecast_text(state: ForecastState | None) -> str:
    """Return ``about 37 label errors remain, 28 to 49 (90 % interval, estimate)``; empty where there is no forecast."""
    if state is None or state.forecast is None:
        return ""
    about, low, high = (round(number) for number in state.forecast.remaining_errors(state.decisions.errors_found))
    return f"about {about:,} label errors remain, {low:,} to {high:,} (90 % interval, estimate)"


def _store(key: tuple[str, str | None], state: ReviewState, computed: Future[ForecastState]) -> None:
    fault = computed.exception()
    with _lock:
        _states[key] = ForecastState(None, state, fault) if isinstance(fault, UserError) else computed.result()
        _running.discard(key)
