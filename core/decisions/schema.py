"""The tables of the decision log, and the upgrade of older files.

=========== ==========================================================================================================
groups      one row per operation: decisions made at once, or an undo or redo
entries     one row per item of a group: the decision on it from then on
tokens      the operations, comments and snapshots that were applied; ``id`` is NULL if there was nothing to undo
comments    comments on items
snapshots   names of states
=========== ==========================================================================================================

``root`` of a group is the group of decisions that it is, undoes or redoes. One group with that root: in force; two:
undone; three: redone; and so on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

SCHEMA_VERSION = 2


def _append_only(table: str, same: str) -> str:
    """Return triggers that forbid changes of rows; ``same`` finds a row that an INSERT OR REPLACE would overwrite."""
    return "".join(
        f"CREATE TRIGGER {table}_{event} BEFORE {event} ON {table} {when} "
        "BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;\n"
        for event, when in (
            ("UPDATE", ""),
            ("DELETE", ""),
            ("INSERT", f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})"),
        )
    )


_VERSION_1 = f"""
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
"""

_VERSION_2 = f"""
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
"""

_STEPS = (_VERSION_1, _VERSION_2)


def file_version(connection: sqlite3.Connection) -> int:
    """Return the schema version of a file; 0 if it is new."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def upgrade(connection: sqlite3.Connection) -> None:
    """Create or upgrade the tables of a file, inside the caller's transaction."""
    for step in _STEPS[file_version(connection) :]:
        for statement in _statements(step):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one (``executescript`` would end the transaction)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
