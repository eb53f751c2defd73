"""The decision log in memory: read once, then kept up with what is appended."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

from core.decisions.records import Entry, Item


class Replay:
    """What the groups given to :meth:`add`, in their order, amount to. The rules stand in core.decisions.log."""

    def __init__(self) -> None:
        self.newest: tuple[int, str] | None = None
        """Id and time of the last group that was added."""
        self.current: dict[Item, Entry] = {}
        """The decision on each item, oldest first; without cleared ones."""
        self.conflicts: dict[Item, tuple[Entry, ...]] = {}
        self._own: dict[str, dict[Item, Entry]] = {}
        self._made: dict[Item, list[Entry]] = {}
        """Every decision ever made on an item, in force or not; what an undo or redo wrote down is not among them."""
        self._groups: dict[int, Sequence[Entry]] = {}
        self._turns: dict[int, list[int]] = {}
        """Of a group of decisions: itself, then the groups that undid and redid it."""

    def own(self, reviewer: str) -> dict[Item, Entry]:
        """The reviewer's newest decision in force on each item, oldest first; without cleared ones."""
        entries = sorted(self._own.get(reviewer, {}).values(), key=attrgetter("seq"))
        return {entry.item: entry for entry in entries}

    def add(self, group: int, root: int, at: str, entries: Sequence[Entry]) -> None:
        """Take in the next group."""
        self.newest = group, at
        self._turns.setdefault(root, []).append(group)
        for entry in entries:
            self.current.pop(entry.item, None)
            if entry.verdict != "clear":
                self.current[entry.item] = entry
        if group == root:
            self._groups[group] = entries
            for entry in entries:
                self._made.setdefault(entry.item, []).append(entry)
        for entry in self._groups[root]:
            opinion = self._opinion(entry.reviewer, entry.item, group)
            own = self._own.setdefault(entry.reviewer, {})
            if opinion is None:
                own.pop(entry.item, None)
            else:
                own[entry.item] = opinion
        self._judge(entry.item for entry in self._groups[root])

    def _opinion(self, reviewer: str, item: Item, version: int) -> Entry | None:
        """What the reviewer stood for when ``version`` was the newest group."""
        for entry in reversed(self._made[item]):
            # An odd number of turns: made, or made, undone and redone.
            if entry.reviewer == reviewer and bisect_right(self._turns[entry.group], version) % 2:
                return None if entry.verdict == "clear" else entry
        return None

    def _judge(self, items: Iterable[Item]) -> None:
        """Find out whether items are in conflict."""
        for item in items:
            made = self._made[item]
            reviewers = {entry.reviewer for entry in made}
            if len(reviewers) == 1:
                continue
            opinions = (self._own.get(reviewer, {}).get(item) for reviewer in reviewers)
            firm = sorted((entry for entry in opinions if entry and entry.is_final), key=attrgetter("seq"))
            if any(entry.outcome != firm[-1].outcome and not self._has_seen(firm[-1], entry) for entry in firm):
                self.conflicts[item] = tuple(firm)
            else:
                self.conflicts.pop(item, None)

    def _has_seen(self, newest: Entry, other: Entry) -> bool:
        """Whether ``newest`` was decided with what ``other`` says on the screen as the view of its reviewer."""
        if newest.saw is None:
            return False
        then = self._opinion(other.reviewer, other.item, newest.saw)
        return then is not None and then.outcome == other.outcome
