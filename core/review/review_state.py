"""The decisions on a queue, by position; read again only after a change of the log."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
from cachetools import LRUCache, cached

from core.decisions import table
from core.decisions.log import DecisionLog
from core.decisions.queue_decisions import QueueDecisions
from core.review.review_queue import Queue

VERDICTS = ("", *table.VERDICTS)
"""Verdicts by code; 0: undecided."""
ACTIVE_WINDOW = timedelta(minutes=5)
"""A reviewer counts as at work for this long after a decision."""
_CACHED_STATES = 12
"""The last states of a few queues, for all reviewers together and in blind mode; every decision makes a new one."""


@dataclass(frozen=True, eq=False)
class ReviewState(QueueDecisions):
    """The decisions on a queue of n items, as one reviewer may see them: in blind mode only the reviewer's own.

    Attributes:
        change_counter: :meth:`DecisionLog.change_counter` when this was read.
        version: :meth:`DecisionLog.version` at that time; None in blind mode, where nothing of others is shown.
        comments: Number of comments by position; in blind mode the reviewer's own.
        recent: Time and reviewer of the newest decisions on the queue's items, for :meth:`active_reviewers`.
    """

    change_counter: int
    version: int | None
    size: int
    comments: Counter[int]
    recent: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def verdict(self) -> np.ndarray:
        """``(n,)`` positions in :data:`VERDICTS`."""
        codes = np.zeros(self.size, dtype=np.int8)
        for position, entry in self.entries.items():
            codes[position] = VERDICTS.index(entry.verdict)
        return codes

    @cached_property
    def fingerprint(self) -> bytes:
        """Bytes that differ whenever the items found wrong or right differ."""
        outcome = np.zeros(self.size, dtype=np.int8)
        for position, is_wrong in self.is_wrong.items():
            outcome[position] = 1 + is_wrong
        return outcome.tobytes()

    def active_reviewers(self, reviewer: str) -> dict[str, int]:
        """Return how many of the newest decisions each other reviewer made in the last five minutes."""
        since = (datetime.now(UTC) - ACTIVE_WINDOW).isoformat(timespec="milliseconds")
        return dict(Counter(name for time, name in self.recent if time >= since and name != reviewer))


def read_state(log: DecisionLog, queue: Queue, only: str | None) -> ReviewState:
    """Return the present decisions of everybody, or of the one reviewer ``only`` (blind mode)."""
    return _read(log, queue, only, log.change_counter())


@cached(LRUCache(_CACHED_STATES), lambda log, queue, *key: (str(log.path), queue.run_id, *key), threading.Lock())
def _read(log: DecisionLog, queue: Queue, only: str | None, counter: int) -> ReviewState:
    version = log.version() if only is None else None  # before the decisions: they may be newer, never older
    current, conflicts = (log.current(), log.conflicts()) if only is None else (log.decisions_of(only), {})
    decisions, position = queue.positions.decisions(current, conflicts), queue.positions.of_item
    comments = Counter(
        position[one.item] for one in log.comments() if one.item in position and only in (None, one.reviewer)
    )
    since = (datetime.now(UTC) - ACTIVE_WINDOW).isoformat(timespec="milliseconds")
    newest = {entry.seq: (entry.at, entry.by) for entry in decisions.entries.values() if entry.at >= since}
    recent = list(newest.values()) if only is None else []
    found = decisions.entries, decisions.conflicts, decisions.is_wrong
    return ReviewState(*found, counter, version, len(queue), comments, recent)
