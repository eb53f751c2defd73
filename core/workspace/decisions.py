"""What reviewers decided, kept for good: an append-only log in SQLite that several people may write at once.

Each call of :meth:`DecisionLog.append` adds one *group*. A group is *in force* until its reviewer undoes it,
and again once he redoes it. **The decision on an item is the newest one in force, whoever made it**, so an undo
never overwrites what somebody else has decided since. Undo and redo append a group of their own that writes
down the outcome; the latest entry of an item is therefore always its present state.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from core.errors import UserError

Kind = Literal["task", "instance", "image"]
Verdict = Literal["keep", "remove", "relabel", "unsure", "clear"]

SCHEMA_VERSION = 1
BUSY_SECONDS = 10.0

_VERDICTS = get_args(Verdict)
# Of an item: its kind, whether it has a task_id, its role, whether it has an image_id.
_SHAPES = {
    ("task", True, "", False),
    ("instance", True, "support", True),
    ("instance", True, "query", True),
    ("image", False, "", True),
}


@dataclass(frozen=True)
class Item:
    """What a decision is about: a whole task, one image in one role of a task, or an image wherever it occurs.

    Raises:
        UserError: a field that the kind needs is empty, or one that it does not have is given.
    """

    kind: Kind
    task_id: str = ""
    role: str = ""
    image_id: str = ""

    def __post_init__(self) -> None:
        if (self.kind, bool(self.task_id), self.role, bool(self.image_id)) not in _SHAPES:
            raise UserError(
                f"This names nothing to decide on: {self}.",
                "A task has a task_id; an instance a task_id, the role support or query, and an image_id; "
                "an image only an image_id.",
            )


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided about an item; ``source`` names the ranking or run that brought it up.

    Raises:
        UserError: an unknown verdict, or a label where there must be none, or none where there must be one.
    """

    item: Item
    verdict: Verdict
    label: int | None = None
    reason: str = ""
    reviewer: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in _VERDICTS:
            raise UserError(f"“{self.verdict}” is not a verdict.", f"Use one of {', '.join(_VERDICTS)}.")
        if (self.verdict == "relabel") != (self.label is not None):
            raise UserError("“relabel” needs a new label, and no other verdict has one.", "Choose the new class.")
        if self.verdict == "relabel" and self.item.kind == "task":
            raise UserError("A task has no label of its own.", "Relabel an image.")
        if self.label is not None and not -(2**63) <= self.label < 2**63:
            raise UserError(f"{self.label} is not a class number.", "Choose an existing class.")


@dataclass(frozen=True, kw_only=True)
class Entry(Decision):
    """One line of the log.

    ``by`` wrote it; it differs from ``reviewer`` where an undo by one brought back the decision of another.
    ``undoes`` is the group that this entry's group takes back: a decision's (undo) or an undo's (redo).
    """

    seq: int
    at: str
    group: int
    by: str
    undoes: int | None = None


@dataclass(frozen=True)
class Reversal:
    """What an undo or redo did: the group's decisions ``taken`` back (or put back), and the newer decisions
    of others that were ``kept`` in place of the rest. Both are empty if there was nothing to undo or redo."""

    taken: tuple[Entry, ...] = ()
    kept: tuple[Entry, ...] = ()


_ITEM = "kind, task_id, role, image_id"

# root: the group of decisions that a group is, undoes or redoes.
# One row with that root: in force; two: undone; three: redone; and so on.
_SCHEMA = f"""
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, root INTEGER NOT NULL, undoes INTEGER, at TEXT NOT NULL, reviewer TEXT NOT NULL);
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, group_id INTEGER NOT NULL,
    kind TEXT NOT NULL, task_id TEXT NOT NULL, role TEXT NOT NULL, image_id TEXT NOT NULL,
    verdict TEXT NOT NULL, label INTEGER, reason TEXT NOT NULL, reviewer TEXT NOT NULL, source TEXT NOT NULL);
CREATE INDEX groups_by_reviewer ON groups (reviewer, root);
CREATE INDEX groups_by_root ON groups (root);
CREATE INDEX entries_by_group ON entries (group_id);
CREATE INDEX entries_by_item ON entries ({_ITEM});
""" + "".join(
    f"CREATE TRIGGER {table}_{event} BEFORE {event} ON {table} {when} "
    "BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;\n"
    for table, key in (("groups", "id"), ("entries", "seq"))
    for event, when in (
        ("UPDATE", ""),
        ("DELETE", ""),
        ("INSERT", f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"),  # INSERT OR REPLACE
    )
)

_SELECT = """
SELECT e.kind, e.task_id, e.role, e.image_id, e.verdict, e.label, e.reason, e.reviewer, e.source,
       e.seq, g.at, g.id, g.reviewer, g.undoes
FROM entries e JOIN groups g ON g.id = e.group_id
"""

_UNDOABLE = """
SELECT root, max(id) AS last FROM groups WHERE reviewer = CAST(:reviewer AS TEXT)
GROUP BY root HAVING count(*) % 2 = 1 ORDER BY root DESC LIMIT 1
"""

_REDOABLE = """
SELECT root, max(id) AS last FROM groups WHERE reviewer = CAST(:reviewer AS TEXT)
GROUP BY root HAVING count(*) % 2 = 0
    AND last > (SELECT max(root) FROM groups WHERE reviewer = CAST(:reviewer AS TEXT))
ORDER BY last DESC LIMIT 1
"""

# For each item of the group :root, its decision there and the newest decision in force.
# (No root leads back to a group that undoes or redoes, so the count leaves those out.)
_OUTCOME = f"""
WITH outcome AS (
    SELECT max(t.seq) AS taken, (
        SELECT max(e.seq) FROM entries e JOIN groups g ON g.id = e.group_id
        WHERE (e.kind, e.task_id, e.role, e.image_id) = (t.kind, t.task_id, t.role, t.image_id)
            AND (SELECT count(*) FROM groups r WHERE r.root = g.id) % 2 = 1
    ) AS winner
    FROM entries t WHERE t.group_id = :root GROUP BY {_ITEM}
)
"""

_ENTRY_COLUMNS = f"group_id, {_ITEM}, verdict, label, reason, reviewer, source"


class DecisionLog:
    """The log in the file ``path``, made if absent. Any number of threads and processes may use it at once.

    Raises:
        UserError: the file is locked, full, damaged or of a newer version; so does every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: tuple[object, dict[Item, Entry]] | None = None
        """The newest group (id and time) and the decisions with it."""
        with self._plain_words():
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._connected() as connection:
                # Where somebody else is at work just now, the next opening switches over.
                with suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")
                (found,) = connection.execute("PRAGMA user_version").fetchone()
                if found > SCHEMA_VERSION:
                    raise UserError(
                        f"{path} was written by a newer version of TaskLens (format {found}, "
                        f"this one reads up to {SCHEMA_VERSION}).",
                        "Update TaskLens; the decisions in it are untouched.",
                    )
                if found == 0:
                    for statement in _statements(_SCHEMA):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("COMMIT")

    def append(self, decisions: Sequence[Decision]) -> int:
        """Add one reviewer's decisions as one group, all or none, and return its id once they are on disk."""
        if not decisions:
            raise UserError("No decision was given.", "Select at least one item.")
        reviewer = decisions[0].reviewer
        if any(decision.reviewer != reviewer for decision in decisions):
            raise ValueError("the decisions of one group must be of one reviewer")
        with self._transaction("IMMEDIATE") as connection:
            group = _add_group(connection, reviewer)
            marks = ", ".join(["CAST(? AS TEXT)"] * 4)
            connection.executemany(
                f"INSERT INTO entries ({_ENTRY_COLUMNS}) "
                f"VALUES (?, {marks}, ?, ?, {', '.join(['CAST(? AS TEXT)'] * 3)})",
                ((group, *_values(decision)) for decision in decisions),
            )
        return group

    def undo(self, reviewer: str) -> Reversal:
        """Take back the reviewer's latest group that is in force; his earlier ones follow at further calls."""
        return self._reverse(_UNDOABLE, reviewer)

    def redo(self, reviewer: str) -> Reversal:
        """Put back what the reviewer undid last, unless he has decided something new since."""
        return self._reverse(_REDOABLE, reviewer)

    def current(self) -> dict[Item, Entry]:
        """The decision on each item, oldest first; items without one, or cleared, are absent.

        Read again only once somebody, here or in another process, has written since.
        """
        latest = f"SELECT max(seq) FROM entries GROUP BY {_ITEM}"
        query = f"{_SELECT} WHERE e.seq IN ({latest}) AND e.verdict != 'clear' ORDER BY e.seq"
        with self._transaction() as connection:
            newest = connection.execute("SELECT id, at FROM groups ORDER BY id DESC LIMIT 1").fetchone()
            known = self._known
            if known is None or known[0] != newest:
                known = newest, {entry.item: entry for entry in map(_entry, connection.execute(query))}
                self._known = known
            return dict(known[1])

    def history(self) -> list[Entry]:
        """Everything ever written, oldest first."""
        with self._transaction() as connection:
            return [_entry(row) for row in connection.execute(f"{_SELECT} ORDER BY e.seq")]

    def version(self) -> int:
        """A number that grows whenever anybody appends, undoes or redoes."""
        with self._transaction() as connection:
            return _last_group(connection)

    def _reverse(self, target: str, reviewer: str) -> Reversal:
        with self._transaction("IMMEDIATE") as connection:
            found = connection.execute(target, {"reviewer": _text(reviewer)}).fetchone()
            if found is None:
                return Reversal()
            root, last = found
            group = _add_group(connection, reviewer, root, last)
            values = {"root": root, "group": group, "reviewer": _text(reviewer)}
            connection.execute(
                f"""{_OUTCOME} INSERT INTO entries ({_ENTRY_COLUMNS})
                SELECT :group, t.kind, t.task_id, t.role, t.image_id, coalesce(w.verdict, 'clear'), w.label,
                    coalesce(w.reason, ''), coalesce(w.reviewer, CAST(:reviewer AS TEXT)), coalesce(w.source, '')
                FROM outcome JOIN entries t ON t.seq = taken LEFT JOIN entries w ON w.seq = winner
                WHERE coalesce(winner, 0) <= taken ORDER BY taken""",
                values,
            )

            def entries(which: str) -> tuple[Entry, ...]:
                query = f"{_OUTCOME} {_SELECT} WHERE e.seq IN (SELECT {which}) ORDER BY e.seq"
                return tuple(map(_entry, connection.execute(query, values)))

            return Reversal(
                taken=entries("taken FROM outcome WHERE coalesce(winner, 0) <= taken"),
                kept=entries("winner FROM outcome WHERE winner > taken"),
            )

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call; what was not committed when it closes is rolled back."""
        with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "surrogatepass")
            connection.execute("PRAGMA synchronous = FULL")
            yield connection

    @contextmanager
    def _transaction(self, mode: Literal["", "IMMEDIATE"] = "") -> Iterator[sqlite3.Connection]:
        with self._plain_words(), self._connected() as connection:
            connection.execute(f"BEGIN {mode}")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _plain_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(*self._explained(error)) from error
        except OSError as error:
            raise UserError(f"{self.path} cannot be used: {error.strerror}.", "Choose another folder.") from error

    def _explained(self, error: sqlite3.Error) -> tuple[str, str]:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return (
                    f"{self.path} is in use by another program, so this was not saved or read.",
                    "Nothing saved earlier is lost. Try again in a moment.",
                )
            case sqlite3.SQLITE_FULL:
                return (
                    f"The disk is full: this was not saved in {self.path}.",
                    "Nothing saved earlier is lost. Free some space and try again.",
                )
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return (
                    f"{self.path} is damaged or is not a log of decisions ({error}); nothing was written to it.",
                    "Move it aside (keep it: much of it can be recovered) and put a backup in its place.",
                )
            case _:
                return (
                    f"{self.path} cannot be used ({error}), so this was not saved or read.",
                    "Nothing saved earlier is lost. Check the disk and the folder's permissions, then try again.",
                )


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one, to run inside a transaction (``executescript`` commits first)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _last_group(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM groups").fetchone()[0])


def _add_group(
    connection: sqlite3.Connection, reviewer: str, root: int | None = None, undoes: int | None = None
) -> int:
    group = _last_group(connection) + 1
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    connection.execute(
        "INSERT INTO groups (id, root, undoes, at, reviewer) VALUES (?, ?, ?, ?, CAST(? AS TEXT))",
        (group, group if root is None else root, undoes, at, _text(reviewer)),
    )
    return group


def _text(value: str) -> bytes:
    """Any Python string, for ``CAST(? AS TEXT)``: SQLite's own binding refuses the names of undecodable files."""
    return value.encode("utf-8", "surrogatepass")


def _values(decision: Decision) -> tuple[bytes | str | int | None, ...]:
    item, label = decision.item, decision.label
    return (
        *map(_text, (item.kind, item.task_id, item.role, item.image_id)),
        decision.verdict,
        None if label is None else int(label),
        *map(_text, (decision.reason, decision.reviewer, decision.source)),
    )


def _entry(row: tuple) -> Entry:
    kind, task_id, role, image_id, verdict, label, reason, reviewer, source, seq, at, group, by, undoes = row
    item = Item(kind, task_id, role, image_id)
    return Entry(item, verdict, label, reason, reviewer, source, seq=seq, at=at, group=group, by=by, undoes=undoes)
