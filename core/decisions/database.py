"""The file of the decision log: its tables, connections and transactions, and errors that say what to do.

=========== ==========================================================================================================
groups      one row per operation: decisions made at once, or an undo or redo
entries     one row per item of a group: the decision on it from then on
tokens      the operations, comments and snapshots that were applied; ``id`` is NULL if there was nothing to undo
comments    comments on items
snapshots   names of states
=========== ==========================================================================================================

``root`` of a group is the group of decisions that it is, undoes or redoes. One group with that root: in force; two:
undone; three: redone; and so on.

``cause`` of an entry is empty in rows of versions that stored none (:func:`core.decisions.causes.implied_cause`), and
of "clear".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from core.runtime.errors import UserError

SCHEMA_VERSION = 3


def _append_only(table: str, same: str) -> str:
    """Return triggers that forbid changes of rows; ``same`` finds a row that an INSERT OR REPLACE would overwrite."""
    events = {"UPDATE": "", "DELETE": "", "INSERT": f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})"}
    return "".join(
        f"CREATE TRIGGER {table}_{event} BEFORE {event} ON {table} {when} "
        "BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;\n"
        for event, when in events.items()
    )


_STEPS = (
    f"""
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, root INTEGER NOT NULL, undoes INTEGER, at TEXT NOT NULL, reviewer TEXT NOT NULL);
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, group_id INTEGER NOT NULL,
    kind TEXT NOT NULL, task_id TEXT NOT NULL, role TEXT NOT NULL, image_id TEXT NOT NULL,
    verdict TEXT NOT NULL, label INTEGER, reason TEXT NOT NULL, reviewer TEXT NOT NULL, source TEXT NOT NULL);
CREATE INDEX groups_by_reviewer ON groups (reviewer, root);
CREATE INDEX groups_by_root ON groups (root);
CREATE INDEX entries_by_group ON entries (group_id);
CREATE INDEX entries_by_item ON entries (kind, task_id, role, image_id);
{_append_only("groups", "id = NEW.id")}
{_append_only("entries", "seq = NEW.seq")}
""",
    f"""
ALTER TABLE groups ADD COLUMN saw INTEGER;
CREATE TABLE tokens (kind TEXT NOT NULL, token TEXT NOT NULL, id INTEGER, PRIMARY KEY (kind, token));
CREATE TABLE comments (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, task_id TEXT NOT NULL, role TEXT NOT NULL, image_id TEXT NOT NULL,
    reviewer TEXT NOT NULL, text TEXT NOT NULL, at TEXT NOT NULL);
CREATE INDEX comments_by_item ON comments (kind, task_id, role, image_id);
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, reviewer TEXT NOT NULL, note TEXT NOT NULL, at TEXT NOT NULL,
    seq INTEGER NOT NULL, group_id INTEGER NOT NULL);
{_append_only("tokens", "(kind, token) = (NEW.kind, NEW.token)")}
{_append_only("comments", "id = NEW.id")}
{_append_only("snapshots", "id = NEW.id OR name = NEW.name")}
""",
    "ALTER TABLE entries ADD COLUMN cause TEXT NOT NULL DEFAULT '';",
)
"""Scripts that upgrade a file of version 0, 1, ... to the next one."""


class LogFile:
    """The SQLite file ``path``, created or upgraded to the present schema where needed.

    Every call has its own connection, so any number of threads and processes may use the file at once, and between two
    calls everything written is in this one file.
    """

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self.path, self.busy_seconds = path, busy_seconds
        with self._user_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._connected() as connection:
                # If another process is writing, the next opening switches the mode.
                with suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA journal_mode = WAL")
                if _version(connection) == SCHEMA_VERSION:
                    return
                connection.execute("BEGIN IMMEDIATE")
                if (version := _version(connection)) > SCHEMA_VERSION:
                    raise UserError(
                        f"{path} was written by a newer version of TaskLens (format {version}, "
                        f"this one reads up to {SCHEMA_VERSION}).",
                        "Update TaskLens; the decisions in it are untouched.",
                    )
                for step in _STEPS[version:]:
                    for statement in _statements(step):
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("COMMIT")

    @contextmanager
    def transaction(self, mode: Literal["", "IMMEDIATE"] = "") -> Iterator[sqlite3.Connection]:
        """Run a transaction: it is on disk when the block ends, or rolled back after an error."""
        with self._user_errors(), self._connected() as connection:
            connection.execute(f"BEGIN {mode}")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open a connection for one call; what is not committed when it closes is rolled back."""
        with closing(sqlite3.connect(self.path, timeout=self.busy_seconds, isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "surrogatepass")
            connection.execute("PRAGMA synchronous = FULL")
            yield connection

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(*self._explanation(error)) from error
        except OSError as error:
            raise UserError(f"{self.path} cannot be used: {error.strerror}.", "Choose another folder.") from error

    def _explanation(self, error: sqlite3.Error) -> tuple[str, str]:
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


def _version(connection: sqlite3.Connection) -> int:
    """Return the schema version of a file; 0 if it is new."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one (``executescript`` would end the transaction)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def encode_text(value: str) -> bytes:
    """Return any string as bytes for ``CAST(? AS TEXT)``; SQLite's text binding refuses names of undecodable files."""
    return value.encode("utf-8", "surrogatepass")
