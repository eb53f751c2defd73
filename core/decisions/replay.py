"""The decision log in memory: read once, then updated with what is appended."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from core.decisions.records import Entry, Item


class Replay:
    """The state that the groups passed to :meth:`add` lead to, by the rules in :mod:`core.decisions.log`."""

    def __init__(self) -> None:
        self.newest = (0, "")
        """Id and time of the last group that was added."""
        self.current: dict[Item, Entry] = {}
        """The decision on each item, oldest first, without cleared ones."""
        self.conflicts: dict[Item, tuple[Entry, ...]] = {}
        self._own: dict[str, dict[Item, Entry]] = {}
        self._decisions: dict[Item, list[Entry]] = {}
        """Every decision on an item, in force or not, without the entries that undo and redo wrote."""
        self._groups: dict[int, Sequence[Entry]] = {}
        self._reversals: dict[int, list[int]] = {}
        """Of a group of decisions: its id, then those of the groups that undid and redid it."""

    def decisions_of(self, reviewer: str) -> dict[Item, Entry]:
        """Return the reviewer's newest decision in force on each item, oldest first, without cleared ones."""
        return {entry.item: entry for entry in sorted(self._own.get(reviewer, {}).values(), key=attrgetter("seq"))}

    def add(self, group: int, root: int, at: str, entries: Sequence[Entry]) -> None:
        """Apply the next group; ``root`` is the group of decisions that it is, undoes or redoes."""
        self.newest = group, at
        self._reversals.setdefault(root, []).append(group)
        for entry in entries:
            self.current.pop(entry.item, None)
            if entry.verdict != "clear":
                self.current[entry.item] = entry
        if group == root:
            self._groups[group] = entries
            for entry in entries:
                self._decisions.setdefault(entry.item, []).append(entry)
        for entry in self._groups[root]:
            opinion = self._opinion(entry.reviewer, entry.item, group)
            opinions = self._own.setdefault(entry.reviewer, {})
            if opinion is None:
                opinions.pop(entry.item, None)
            else:
                opinions[entry.item] = opinion
            self._update_conflict(entry.item)

    def _opinion(self, reviewer: str, item: Item, version: int) -> Entry | None:
        """Return the reviewer's own decision when ``version`` was the newest group."""
        for entry in reversed(self._decisions[item]):
            # In force: its group and an even number of undos and redos.
            if entry.reviewer == reviewer and bisect_right(self._reversals[entry.group], version) % 2:
                return None if entry.verdict == "clear" else entry
        return None

    def _update_conflict(self, item: Item) -> None:
        reviewers = {entry.reviewer for entry in self._decisions[item]}
        opinions = (self._own.get(reviewer, {}).get(item) for reviewer in reviewers)
        final = sorted((entry for entry in opinions if entry and entry.is_final), key=attrgetter("seq"))
        if any(entry.outcome != final[-1].outcome and not self._has_seen(final[-1], entry) for entry in final):
            self.conflicts[item] = tuple(final)
        else:
            self.conflicts.pop(item, None)

    def _has_seen(self, newest: Entry, other: Entry) -> bool:
        """Return whether the decision ``other`` was visible when ``newest`` was made."""
        if newest.saw is None:
            return False
        opinion = self._opinion(other.reviewer, other.item, newest.saw)
        return opinion is not None and opinion.outcome == other.outcome
