"""What reviewers decided, kept for good: an append-only log in SQLite that several people may write at once.

**Groups.** What a reviewer decides at once is one *group*. It is *in force* until its reviewer undoes it, and again
once he redoes it. Everybody undoes his own groups only. Undo and redo append a group of their own that writes down
the outcome; the latest entry of an item is therefore always its present state.

**The decision on an item is the newest one in force, whoever made it** (:meth:`DecisionLog.current`), so an undo
never overwrites what somebody else has decided since. A redo puts a decision back at its old place: newer decisions
of others stay in front of it.

**What one reviewer stands for** on an item is his own newest decision in force (:meth:`DecisionLog.own`). "clear" is
no decision: it takes his earlier ones back, and the item has none for everybody until somebody decides again.

**Conflicts** (:meth:`DecisionLog.conflicts`). Only firm decisions count (keep, remove, relabel): "unsure" contradicts
nobody and settles nothing. Of the firm decisions that reviewers stand for, look at the newest. The item is in
conflict if another one says something else (verdict or label) and the newest was made without having seen that: its
reviewer saw nothing of others (``saw`` is None), or what he saw was from before the other stood for it. So whoever
decides with all the others on his screen settles the item, and so does whoever undoes, clears or changes his own
decision until the rest agree; and an undone settlement opens the conflict again. A redo does not make its reviewer
see more than he saw when he decided.

**Snapshots** name a state. Restoring one is a new group of decisions by whoever restores, made in the sight of all
(it settles conflicts on the items it changes), with "clear" for what the snapshot did not have; it can be undone like
any other.

**Tokens.** An operation with a token is done once, however often it is sent, and its result is said again; so a
browser may send again whatever was not acknowledged.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from core.decisions import reading as reading
from core.decisions import writing as writing
from core.decisions.database import LogFile
from core.decisions.records import (
    Act,
    Comment,
    Decision,
    Entry,
    Item,
    Kind,
    Operation,
    Result,
    Snapshot,
    Verdict,
)
from core.decisions.replay import Replay
from core.decisions.schema import SCHEMA_VERSION
from core.runtime.errors import UserError

__all__ = [
    "BUSY_SECONDS",
    "SCHEMA_VERSION",
    "Act",
    "Comment",
    "Decision",
    "DecisionLog",
    "Entry",
    "Item",
    "Kind",
    "Operation",
    "Result",
    "Snapshot",
    "Verdict",
]

BUSY_SECONDS = 10.0

T = TypeVar("T")


class DecisionLog:
    """The log in the file ``path``, made if absent. Any number of threads and processes may use it at once.

    Args:
        path: The file.
        busy_seconds: How long a call waits for others who are writing.

    Raises:
        UserError: the file is locked, full, damaged or of a newer version; so does every method.
    """

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        self._file = LogFile(path, busy_seconds)
        self._replay, self._reading = Replay(), threading.Lock()

    def submit(self, operations: Sequence[Operation]) -> list[Result]:
        """Do operations in their order, all or none, and return once they are on the disk.

        An operation whose token is known is not done again; its result is what it was the first time.
        """
        if not operations:
            return []
        with self._file.transaction("IMMEDIATE") as connection:
            return [writing.apply_idempotent(connection, operation) for operation in operations]

    def append(self, decisions: Sequence[Decision]) -> int:
        """Add one reviewer's decisions as one group, all or none, and return its id once they are on disk."""
        reviewer = decisions[0].reviewer if decisions else ""
        if any(decision.reviewer != reviewer for decision in decisions):
            raise ValueError("the decisions of one group must be of one reviewer")
        (result,) = self.submit([Operation("decide", reviewer, decisions=tuple(decisions))])
        assert result.group is not None
        return result.group

    def undo(self, reviewer: str) -> Result:
        """Take back the reviewer's latest group that is in force; his earlier ones follow at further calls."""
        return self.submit([Operation("undo", reviewer)])[0]

    def redo(self, reviewer: str) -> Result:
        """Put back what the reviewer undid last, unless he has decided something new since."""
        return self.submit([Operation("redo", reviewer)])[0]

    def current(self) -> dict[Item, Entry]:
        """The decision on each item, oldest first; items without one, or cleared, are absent.

        Like :meth:`own` and :meth:`conflicts`, it reads only what anybody, here or in another process, has written
        since the last call.
        """
        return self._replayed(lambda replay: dict(replay.current))

    def own(self, reviewer: str) -> dict[Item, Entry]:
        """What one reviewer stands for on each item, whatever others decided: all that blind mode shows."""
        return self._replayed(lambda replay: replay.own(reviewer))

    def conflicts(self) -> dict[Item, tuple[Entry, ...]]:
        """Items on which reviewers differ unknowingly, with what each firmly stands for, oldest first."""
        return self._replayed(lambda replay: dict(replay.conflicts))

    def history(self, item: Item | None = None) -> list[Entry]:
        """Everything ever decided, on one item or on all, oldest first."""
        with self._file.transaction() as connection:
            return reading.entries_on(connection, item)

    def version(self) -> int:
        """The newest group: a number that grows whenever anybody decides, undoes or redoes."""
        with self._file.transaction() as connection:
            return reading.last(connection, "groups")

    def change_counter(self) -> int:
        """A number that grows whenever anybody writes anything, comments and snapshots too; cheap to ask for."""
        with self._file.transaction() as connection:
            return sum(reading.last(connection, table) for table in ("groups", "comments", "snapshots"))

    def comment(self, item: Item, reviewer: str, text: str, token: str = "") -> Comment:
        """Say something about an item; with a token known from before, the comment of then is returned.

        Raises:
            UserError: there is no text.
        """
        if not text.strip():
            raise UserError("The comment is empty.", "Write something first.")
        with self._file.transaction("IMMEDIATE") as connection:
            return writing.comment(connection, item, reviewer, text, token)

    def comments(self, item: Item | None = None) -> list[Comment]:
        """What was said about one item, or about all, oldest first."""
        with self._file.transaction() as connection:
            return reading.comments_on(connection, item)

    def snapshot(self, name: str, reviewer: str, note: str = "", token: str = "") -> Snapshot:
        """Give the present state a name; with a token known from before, the snapshot of then is returned.

        Raises:
            UserError: the name is empty or taken.
        """
        if not name.strip():
            raise UserError("The snapshot has no name.", "Give it one.")
        with self._file.transaction("IMMEDIATE") as connection:
            return writing.snapshot(connection, name, reviewer, note, token)

    def snapshots(self) -> list[Snapshot]:
        """Every snapshot, oldest first."""
        with self._file.transaction() as connection:
            return reading.snapshots(connection, "ORDER BY id")

    def state(self, at: int | str) -> dict[Item, Entry]:
        """The decision on each item as it was after the entry ``at`` (a number) or in the snapshot of that name.

        Raises:
            UserError: there is no such snapshot.
        """
        with self._file.transaction() as connection:
            return reading.state(connection, at)

    def difference(
        self, before: int | str, after: int | str | None = None
    ) -> dict[Item, tuple[Entry | None, Entry | None]]:
        """Where two states say something else (verdict or label), with both decisions; without ``after``, it is now.

        Raises:
            UserError: there is no such snapshot.
        """
        with self._file.transaction() as connection:
            return reading.difference(reading.state(connection, before), reading.state(connection, after))

    def restore(self, name: str, reviewer: str, token: str = "") -> Result:
        """Decide everything as it was in a snapshot; ``group`` is None where nothing differs.

        Raises:
            UserError: there is no such snapshot.
        """
        with self._file.transaction("IMMEDIATE") as connection:
            return writing.restore(connection, name, reviewer, token)

    def _replayed(self, answer: Callable[[Replay], T]) -> T:
        # The transaction begins to read at its first question, so inside the lock no older state than the known one
        # is read.
        with self._file.transaction() as connection, self._reading:
            newest = self._replay.newest
            if newest is not None:
                found = connection.execute("SELECT id, at FROM groups WHERE id = ?", newest[:1]).fetchone()
                if found != newest:  # another file lies in the place of the known one
                    self._replay = Replay()
            _catch_up(connection, self._replay)
            return answer(self._replay)


def _catch_up(connection: sqlite3.Connection, replay: Replay) -> None:
    known = replay.newest[0] if replay.newest else 0
    written: dict[int, list[Entry]] = {}
    groups = connection.execute("SELECT id, root, at FROM groups WHERE id > ? ORDER BY id", (known,)).fetchall()
    if not groups:
        return
    for entry in reading.entries(connection, "WHERE e.group_id > ? ORDER BY e.seq", (known,)):
        written.setdefault(entry.group, []).append(entry)
    for group, root, at in groups:
        replay.add(group, root, at, written.get(group, []))
