"""The tables of the decision log, and whether an SQLite file is one.

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
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from core.runtime.errors import TransientError

SCHEMA_VERSION = 3
APPLICATION_ID = 0x544C4F47
"""``PRAGMA application_id`` of a log ("TLOG"); 0 in logs of earlier versions."""


TABLES = ("groups", "entries", "tokens", "comments", "snapshots")


class LogFileError(TransientError):
    """An error of the file of the log: the operation itself is not at fault, and may be repeated.

    Attributes:
        code: Primary result code of SQLite (https://sqlite.org/rescode.html).
    """

    def __init__(self, what: str, fix: str, code: int) -> None:
        super().__init__(what, fix)
        self.code = code


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


def check_schema(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a log; 0 of a file without any tables, which an interrupted creation could leave.

    Raises:
        LogFileError: the file is of another program (NOTADB), of a newer version (MISMATCH), or lacks a table, a
            column or a trigger (CORRUPT).
    """
    version, application = (_pragma(connection, name) for name in ("user_version", "application_id"))
    kept = "Nothing was written to it."
    present = _objects(connection)
    if not present and not version and not application:
        return 0
    is_log = application in (0, APPLICATION_ID) and {"table groups", "table entries"} <= present
    if not is_log and application != APPLICATION_ID:
        raise LogFileError(
            f"{path} is a database of another program, not a decision log.",
            f"{kept} Move it elsewhere, and put the log or a backup of it in its place.",
            sqlite3.SQLITE_NOTADB,
        )
    if version > SCHEMA_VERSION:
        raise LogFileError(
            f"{path} was written by a newer version of TaskLens (format {version}, "
            f"this one reads up to {SCHEMA_VERSION}).",
            "Update TaskLens; the decisions in it are untouched.",
            sqlite3.SQLITE_MISMATCH,
        )
    missing = ["its format number"] if version < 1 else sorted(_expected(version) - present)
    if missing:
        raise LogFileError(
            f"{path} is not a complete decision log: it lacks {', '.join(missing[:3])}.",
            f"{kept} Put a backup in its place.",
            sqlite3.SQLITE_CORRUPT,
        )
    return version


def check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """Raise LogFileError if a page of the file is damaged (``PRAGMA quick_check``)."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise damage_error(path, str(found))


def damage_error(path: Path, reason: str) -> LogFileError:
    """Return the error for a file whose content is damaged."""
    reason = " ".join(reason.split())
    return LogFileError(
        f"{path} is damaged or is not a decision log ({reason}); nothing was written to it.",
        "Move it aside (keep it: much of it can be recovered) and put a backup in its place.",
        sqlite3.SQLITE_CORRUPT,
    )


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Create or upgrade the tables, inside the caller's transaction."""
    for step in _STEPS[version:]:
        for statement in _statements(step):
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@lru_cache
def empty_log() -> bytes:
    """Return the content of the file of an empty log."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        upgrade(connection, 0)
        return connection.serialize()


@lru_cache
def _expected(version: int) -> frozenset[str]:
    """Return what a log of a version has (:func:`_objects`)."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for step in _STEPS[:version]:
            connection.executescript(step)
        return frozenset(_objects(connection))


def _objects(connection: sqlite3.Connection) -> set[str]:
    """Return the tables, their columns and triggers, such as ``column saw of groups``; a log works without indexes."""
    found = connection.execute("SELECT type, name FROM main.sqlite_master WHERE type != 'index'").fetchall()
    columns = (
        f"column {column} of {table}"
        for table in TABLES
        for (column,) in connection.execute("SELECT name FROM pragma_table_info(?, 'main')", (table,))
    )
    return {*(f"{kind} {name}" for kind, name in found), *columns}


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA main.{name}").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one (``executescript`` would end the transaction)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
