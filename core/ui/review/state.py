"""What has been decided on a queue, by position; kept up with what anybody writes."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from core.decisions.log import DecisionLog, Entry
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
        verdict: ``(n,)`` positions in :data:`VERDICTS`; 0: undecided.
        entries: The decision by position.
        conflicts: What each reviewer stands for, by position; empty in blind mode.
        comments: Number of comments by position; in blind mode of his own.
        recent: Time and reviewer of the newest decisions on the queue's items, for :meth:`active`.
    """

    pulse: int
    version: int | None
    verdict: np.ndarray
    entries: dict[int, Entry]
    conflicts: dict[int, tuple[Entry, ...]]
    comments: Counter[int]
    recent: list[tuple[str, str]] = field(default_factory=list)

    def count(self, verdict: str) -> int:
        return int((self.verdict == VERDICTS.index(verdict)).sum())

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
    position = queue.position
    verdict = np.zeros(len(queue), dtype=np.int8)
    code = {name: at for at, name in enumerate(VERDICTS)}
    entries = {position[item]: entry for item, entry in current.items() if item in position}
    for at, entry in entries.items():
        verdict[at] = code[entry.verdict]
    conflicts = log.conflicts() if only is None else {}
    since = (datetime.now(UTC) - _ACTIVE).isoformat(timespec="milliseconds")
    return Decided(
        pulse,
        version,
        verdict,
        entries,
        {position[item]: said for item, said in conflicts.items() if item in position},
        Counter(position[one.item] for one in log.comments() if one.item in position and only in (None, one.reviewer)),
        [(entry.at, entry.by) for entry in entries.values() if entry.at >= since] if only is None else [],
    )
