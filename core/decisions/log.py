"""The decision log: an append-only record in SQLite of what reviewers decided, which several people may write at once.

**Groups.** The decisions that a reviewer makes at once are one *group*. It is *in force* until its reviewer undoes it,
and again after a redo. Reviewers undo only their own groups. Undo and redo append a group that records the outcome, so
the latest entry of an item is always its present state.

**The decision on an item is the newest one in force, by any reviewer** (:meth:`DecisionLog.current`), so an undo
never overwrites what another reviewer has decided since. A redo restores a decision at its old position, before newer
decisions of others.

**A reviewer's own decision** on an item is the newest one in force by that reviewer
(:meth:`DecisionLog.decisions_of`). "clear" withdraws a reviewer's earlier decisions, and leaves the item undecided
until the next decision on it.

**Conflicts** (:meth:`DecisionLog.conflicts`). Only final decisions count (keep, remove, relabel): "unsure" neither
contradicts nor resolves. An item is in conflict if the newest of the reviewers' own final decisions differs from
another one (in verdict or label; two removals for different causes agree) that its reviewer had not seen: decisions of
others were hidden (``saw`` is None), or the version on the screen was older. So deciding with all other decisions on
the screen resolves a conflict, and so does undoing, clearing or changing one's own decision until the rest agree;
undoing a resolution opens the conflict again. A redo does not count as having seen more than the original decision.

**Snapshots** name a state. Restoring one is a new group of decisions by the reviewer who restores, made with all
decisions on the screen (it resolves conflicts on the items that it changes), with "clear" for items without a decision
in the snapshot. It can be undone like any other group.

**Tokens.** An operation with a token is done once, however often it is sent, and returns the same result each time, so
a browser can resend whatever was not acknowledged.

**Invalid rows**, as another program or a damaged disk leaves them, count for nothing and hide nothing
(:meth:`DecisionLog.unreadable_rows`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from core.decisions import queries
from core.decisions.database import LogFile
from core.decisions.records import (
    Comment,
    Decision,
    Entry,
    Item,
    Operation,
    Result,
    Snapshot,
    check_comment,
    check_reviewer,
)
from core.decisions.records import Verdict as Verdict
from core.decisions.replay import Replay
from core.decisions.schema import LogFileError as LogFileError
from core.decisions.texts import is_blank
from core.decisions.valid_rows import RowCheck, UnreadableRow
from core.runtime.errors import UserError

BUSY_SECONDS = 10.0
"""How long a call waits for other writers before it fails."""

T = TypeVar("T")


class DecisionLog:
    """The log in the file ``path``, created if absent. Any number of threads and processes may use it at once.

    A log that this process may not write is read all the same; it may be absent, and is then empty.

    Raises:
        LogFileError: the file is locked for longer than ``busy_seconds``, read-only, full, damaged, of a newer version
            or of another program; every method raises it too.
        UserError: a method that takes the name of a snapshot raises it if there is no such snapshot.
    """

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        self._file = LogFile(path, busy_seconds)
        self._replay, self._reading = Replay(), threading.Lock()
        self._rows = RowCheck()

    @contextmanager
    def transaction(self, *, keep: bool = True) -> Iterator[LogTransaction]:
        """Run a block that reads the log and appends to it: all of it is on disk at its end, or after an error nothing.

        No other process writes meanwhile.

        Args:
            keep: False: run the block on a copy of the log, which is dropped: a dry run, for which nobody waits.
        """
        with self._valid_rows(for_writing=True, keep=keep) as connection:
            yield LogTransaction(self, connection)

    def submit(self, operations: Sequence[Operation]) -> list[Result]:
        """Apply operations in their order, all or none, and return their results once they are on disk.

        An operation whose token is known is not applied again; its result is that of the first time.
        """
        if not operations:
            return []
        with self.transaction() as transaction:
            return [transaction.apply(operation) for operation in operations]

    def append(self, decisions: Sequence[Decision]) -> int:
        """Append one reviewer's decisions as one group and return its id once they are on disk."""
        reviewer = decisions[0].reviewer if decisions else ""
        (result,) = self.submit([Operation("decide", reviewer, decisions=tuple(decisions))])
        assert result.group is not None
        return result.group

    def undo(self, reviewer: str) -> Result:
        """Undo the reviewer's latest group in force; further calls undo earlier ones."""
        return self.submit([Operation("undo", reviewer)])[0]

    def redo(self, reviewer: str) -> Result:
        """Redo what the reviewer undid last, unless the reviewer has decided something since."""
        return self.submit([Operation("redo", reviewer)])[0]

    def current(self) -> dict[Item, Entry]:
        """Return the decision on each item, oldest first, without cleared ones; only what is new is read from disk."""
        return self._replayed(lambda replay: dict(replay.current))

    def decisions_of(self, reviewer: str) -> dict[Item, Entry]:
        """Return one reviewer's own decision on each item, which is all that blind mode shows."""
        return self._replayed(lambda replay: replay.decisions_of(reviewer))

    def conflicts(self) -> dict[Item, tuple[Entry, ...]]:
        """Return the items in conflict with the reviewers' own final decisions, oldest first."""
        return self._replayed(lambda replay: dict(replay.conflicts))

    def history(self, item: Item | None = None) -> list[Entry]:
        """Return every entry of the log, on one item or on all, oldest first."""
        with self._valid_rows() as connection:
            return queries.entries(connection, *queries.on_item(item, "e.seq"))

    def version(self) -> int:
        """Return the id of the newest group, which grows with every decision, undo and redo."""
        with self._file.transaction() as connection:
            return queries.newest_id(connection, "groups")

    def change_counter(self) -> int:
        """Return a number that grows with everything written, comments and snapshots included; fast to read."""
        with self._file.transaction() as connection:
            return sum(queries.newest_id(connection, table) for table in ("groups", "comments", "snapshots"))

    def comment(self, item: Item, reviewer: str, text: str, token: str = "") -> Comment:
        """Add a comment and return it, or the one of a known token; raise UserError without a text or a reviewer."""
        check_reviewer(reviewer)
        check_comment(text)
        with self.transaction() as transaction:
            return transaction.comment(item, reviewer, text, token)

    def comments(self, item: Item | None = None) -> list[Comment]:
        """Return the comments on one item, or on all, oldest first."""
        with self._valid_rows() as connection:
            return queries.comments(connection, *queries.on_item(item, "id"))

    def snapshot(self, name: str, reviewer: str, note: str = "", token: str = "") -> Snapshot:
        """Name the present state, or return that of a known token; raise UserError if a name is empty or taken."""
        check_reviewer(reviewer)
        if is_blank(name):
            raise UserError("The snapshot has no name.", "Enter a name.")
        with self._valid_rows(for_writing=True) as connection:
            return queries.snapshot(connection, name, reviewer, note, token)

    def snapshots(self) -> list[Snapshot]:
        """Return every snapshot, oldest first."""
        with self._valid_rows() as connection:
            return queries.snapshots(connection, "ORDER BY id")

    def state(self, at: int | str) -> dict[Item, Entry]:
        """Return the decision on each item after the entry with the number ``at``, or in the snapshot of that name."""
        with self._valid_rows() as connection:
            return queries.state(connection, at)

    def difference(
        self, before: int | str, after: int | str | None = None
    ) -> dict[Item, tuple[Entry | None, Entry | None]]:
        """Return the items whose decision differs between two states, with both; without ``after``, up to now."""
        with self._valid_rows() as connection:
            return queries.difference(connection, before, after)

    def restore(self, name: str, reviewer: str, token: str = "") -> Result:
        """Append decisions that restore a snapshot; ``group`` is None if nothing differs."""
        with self._valid_rows(for_writing=True) as connection:
            return queries.restore(connection, name, reviewer, token)

    def unreadable_rows(self) -> list[UnreadableRow]:
        """Return the rows of the file that are invalid and left out."""
        with self._file.transaction() as connection:
            return self._rows.leave_out_invalid(connection)

    @contextmanager
    def _valid_rows(self, *, for_writing: bool = False, keep: bool = True) -> Iterator[sqlite3.Connection]:
        """Run a transaction that sees the valid rows only."""
        mode: Literal["", "IMMEDIATE"] = "IMMEDIATE" if for_writing else ""
        with self._file.transaction(mode, keep=keep) as connection, self._invalid_left_out(connection):
            yield connection

    @contextmanager
    def _invalid_left_out(self, connection: sqlite3.Connection) -> Iterator[None]:
        self._rows.leave_out_invalid(connection)
        try:
            yield
        except queries.InvalidRowError as error:
            self._rows.start_again()
            what = f"{self.path}: row {error.seq} of entries was changed by another program since it was read."
            raise LogFileError(what, "Try again: it will be left out.", sqlite3.SQLITE_CORRUPT) from error
        except queries.NoNumberError as error:
            what = f"{self.path}: {error} was written by another program; its number leaves none for new rows."
            raise LogFileError(what, "Put a backup in its place.", sqlite3.SQLITE_CORRUPT) from error

    def _replayed(self, query: Callable[[Replay], T]) -> T:
        # The transaction reads from its first query on, so inside the lock it sees no older state than the known one.
        with self._file.transaction() as connection, self._reading, self._invalid_left_out(connection):
            return self._replayed_in(connection, query)

    def _replayed_in(self, connection: sqlite3.Connection, query: Callable[[Replay], T]) -> T:
        newest = self._replay.newest
        if connection.execute("SELECT id, at FROM groups WHERE id = ?", newest[:1]).fetchone() != newest:
            self._replay = Replay()  # nothing was read yet, or another file has replaced the known one
        _catch_up(connection, self._replay)
        return query(self._replay)


class LogTransaction:
    """What can be done in a transaction of :meth:`DecisionLog.transaction`: read the state before it, then append.

    What is appended is not in what the methods that read return, so they are to be called first.
    """

    def __init__(self, log: DecisionLog, connection: sqlite3.Connection) -> None:
        self._log, self._connection, self._has_appended = log, connection, False

    def current(self) -> dict[Item, Entry]:
        """Return :meth:`DecisionLog.current`."""
        return self._before(lambda replay: dict(replay.current))

    def decisions_of(self, reviewer: str) -> dict[Item, Entry]:
        """Return :meth:`DecisionLog.decisions_of`."""
        return self._before(lambda replay: replay.decisions_of(reviewer))

    def comments(self) -> list[Comment]:
        """Return every comment, oldest first."""
        return queries.comments(self._connection, *queries.on_item(None, "id"))

    def apply(self, operation: Operation) -> Result:
        """Apply an operation, or return the result of the one with the same token."""
        self._has_appended = True
        return queries.apply_idempotent(self._connection, operation)

    def comment(self, item: Item, reviewer: str, text: str, token: str = "") -> Comment:
        """Add a comment and return it, or the one of a known token; raise UserError without a text or a reviewer."""
        check_reviewer(reviewer)
        check_comment(text)
        self._has_appended = True
        return queries.comment(self._connection, item, reviewer, text, token)

    @contextmanager
    def separately(self) -> Iterator[None]:
        """Run a block that appends everything or, after an error, nothing; what was appended before it stays."""
        self._connection.execute("SAVEPOINT separate")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # SQLite ends it by itself, for example if the disk is full
                self._connection.execute("ROLLBACK TO separate")
                self._connection.execute("RELEASE separate")
            raise
        self._connection.execute("RELEASE separate")

    def _before(self, query: Callable[[Replay], T]) -> T:
        if self._has_appended:
            raise RuntimeError("read the state before appending to it")
        # Nobody else can append meanwhile, so the known state is not newer. Only that of a copy may be older: it is
        # then read from its beginning.
        with self._log._reading:
            return self._log._replayed_in(self._connection, query)


def _catch_up(connection: sqlite3.Connection, replay: Replay) -> None:
    newest = replay.newest[:1]
    groups = connection.execute("SELECT id, root, at FROM groups WHERE id > ? ORDER BY id", newest).fetchall()
    if not groups:
        return
    entries_of: dict[int, list[Entry]] = {}
    for entry in queries.entries(connection, "WHERE e.group_id > ? ORDER BY e.seq", newest):
        entries_of.setdefault(entry.group, []).append(entry)
    for group, root, at in groups:
        replay.add(group, root, at, entries_of.get(group, []))
