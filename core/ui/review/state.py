"""What has been decided on a queue, by position; kept up with what anybody writes."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np

from core.decisions.log import DecisionLog, Entry
from core.decisions.queue_decisions import QueueDecisions
from core.ui.review.queue import Queue

VERDICTS = ("", "keep", "remove", "relabel", "unsure")
_KEPT = 12
_ACTIVE = timedelta(minutes=5)


@dataclass(frozen=True, eq=False)
class Decided:
    """Decisions on a queue of n items, as one reviewer may see them.

    Attributes:
        pulse: :meth:`DecisionLog.pulse` when this was read.
        version: :meth:`DecisionLog.version` at that time; None in blind mode, where nothing of others is seen.
        size: n.
        on_items: Which items were found wrong, found right, or are open; in blind mode by his own decisions alone.
        comments: Number of comments by position; in blind mode of his own.
        recent: Time and reviewer of the newest decisions on the queue's items, for :meth:`active`.
    """

    pulse: int
    version: int | None
    size: int
    on_items: QueueDecisions
    comments: Counter[int]
    recent: list[tuple[str, str]] = field(default_factory=list)

    @property
    def entries(self) -> dict[int, Entry]:
        """The decision that counts, by position."""
        return self.on_items.entries

    @property
    def conflicts(self) -> dict[int, tuple[Entry, ...]]:
        """What each reviewer stands for, by position; empty in blind mode."""
        return self.on_items.conflicts

    @cached_property
    def verdict(self) -> np.ndarray:
        """``(n,)`` positions in :data:`VERDICTS`; 0: undecided."""
        codes = np.zeros(self.size, dtype=np.int8)
        for at, entry in self.entries.items():
            codes[at] = VERDICTS.index(entry.verdict)
        return codes

    @cached_property
    def fingerprint(self) -> bytes:
        """Names which items were found wrong and which right."""
        outcome = np.zeros(self.size, dtype=np.int8)
        for at, wrong in self.on_items.is_wrong.items():
            outcome[at] = 1 + wrong
        return outcome.tobytes()

    @property
    def decided(self) -> int:
        return len(self.entries)

    def active(self, reviewer: str) -> dict[str, int]:
        """How many of the newest decisions each other reviewer made in the last five minutes."""
        since = (datetime.now(UTC) - _ACTIVE).isoformat(timespec="milliseconds")
        return dict(Counter(by for at, by in self.recent if at >= since and by != reviewer))


_kept: OrderedDict[tuple[str, str, str | None], Decided] = OrderedDict()
_lock = threading.Lock()


def decided(log: DecisionLog, queue: Queue, only: str | None) -> Decided:
    """The decisions as they now are; read again only when somebody has written.

    Args:
        only: The reviewer whose own decisions are shown (blind mode); None: everybody's.
    """
    name, pulse = (str(log.path), queue.run.id, only), log.change_counter()
    with _lock:
        known = _kept.get(name)
    if known is not None and known.pulse == pulse:
        return known
    read = _read(log, queue, only, pulse)
    with _lock:
        _kept[name] = read
        _kept.move_to_end(name)
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return read


def _read(log: DecisionLog, queue: Queue, only: str | None, pulse: int) -> Decided:
    version = log.version() if only is None else None  # before the decisions: they may be newer, never older
    current = log.current() if only is None else log.own(only)
    position = queue.positions.of_item
    on_items = queue.positions.decisions(current, log.conflicts() if only is None else {})
    since = (datetime.now(UTC) - _ACTIVE).isoformat(timespec="milliseconds")
    newest = {entry.seq: (entry.at, entry.by) for entry in on_items.entries.values() if entry.at >= since}
    return Decided(
        pulse,
        version,
        len(queue),
        on_items,
        Counter(position[one.item] for one in log.comments() if one.item in position and only in (None, one.reviewer)),
        list(newest.values()) if only is None else [],
    )
