"""Which rows of the log can be read: what another program or a damaged disk left is named, and left out.

Rows are checked once. Only if some are invalid, a connection gets temporary views with the names of the tables, which
hold the valid rows alone: so every query agrees on what counts. Rows are appended to the tables themselves
(``main.entries``).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import NamedTuple

from core.decisions.causes import CAUSES

LARGEST_ID = 2**53
"""Numbers of rows are at most this large, so that one from outside leaves room for more."""
FULL_FROM = LARGEST_ID - 2**40
"""Nothing is appended after a row with this number or a larger one: new rows could get numbers that are invalid."""


_NAMED_ROWS = 5


class UnreadableRow(NamedTuple):
    """A row that is left out: its table, its number, and the first column that is invalid."""

    table: str
    number: int
    column: str

    def __str__(self) -> str:
        return f"row {self.number} of {self.table} ({self.column})"


def _text(*columns: str) -> dict[str, str]:
    return {column: f"typeof({{t}}.{column}) = 'text'" for column in columns}


def _integer(*columns: str) -> dict[str, str]:
    return {column: f"typeof({{t}}.{column}) = 'integer'" for column in columns}


def _optional_integer(*columns: str) -> dict[str, str]:
    return {column: f"typeof({{t}}.{column}) IN ('integer', 'null')" for column in columns}


def _number(column: str) -> dict[str, str]:
    return {column: f"{{t}}.{column} BETWEEN 1 AND {LARGEST_ID}"}


_AT = {
    "at": "typeof({t}.at) = 'text' AND {t}.at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*' "
    "AND datetime({t}.at) IS NOT NULL"
}
_ITEM = {
    **_text("kind", "task_id", "role", "image_id"),
    "kind ": "CASE {t}.kind WHEN 'task' THEN {t}.task_id != '' AND {t}.role = '' AND {t}.image_id = '' "
    "WHEN 'instance' THEN {t}.task_id != '' AND {t}.role IN ('support', 'query') AND {t}.image_id != '' "
    "WHEN 'image' THEN {t}.task_id = '' AND {t}.role = '' AND {t}.image_id != '' ELSE 0 END",
}
_GROUP = _number("id") | _integer("root") | _optional_integer("undoes", "saw") | _AT | _text("reviewer")
_CAUSES = ", ".join(f"'{cause}'" for cause in CAUSES)


def _all(conditions: dict[str, str], alias: str) -> str:
    return " AND ".join(f"coalesce({condition.format(t=alias)}, 0)" for condition in conditions.values())


_RULES: dict[str, dict[str, str]] = {
    "groups": {
        **_GROUP,
        # A group of decisions is its own root; an undo or redo comes after its root, so there are no cycles.
        "root ": "{t}.root = {t}.id OR {t}.root < {t}.id AND EXISTS "
        f"(SELECT 1 FROM main.groups r WHERE r.id = {{t}}.root AND r.root = r.id AND {_all(_GROUP, 'r')})",
    },
    "entries": {
        **_number("seq"),
        **_integer("group_id"),
        **_ITEM,
        "verdict": "{t}.verdict IN ('keep', 'remove', 'relabel', 'unsure', 'clear')",
        "label": "typeof({t}.label) IN ('integer', 'null') AND ({t}.verdict = 'relabel') = ({t}.label IS NOT NULL) "
        "AND NOT ({t}.verdict = 'relabel' AND {t}.kind = 'task')",
        **_text("reason", "reviewer", "source"),
        "cause": f"{{t}}.cause = '' OR {{t}}.verdict != 'clear' AND {{t}}.cause IN ({_CAUSES}) "
        "AND ({t}.verdict != 'relabel' OR {t}.cause = 'label-error')",
        "group_id ": "EXISTS (SELECT 1 FROM temp.groups g WHERE g.id = {t}.group_id)",
    },
    "comments": {**_number("id"), **_ITEM, **_text("reviewer", "text"), **_AT},
    "snapshots": {**_number("id"), **_text("name", "reviewer", "note"), **_AT, **_integer("seq", "group_id")},
}
"""Conditions on the columns of each table; a name that ends with a space is a second condition on a column."""
_KEYS = {table: next(iter(rules)) for table, rules in _RULES.items()}


def unreadable_text(rows: Sequence[UnreadableRow]) -> str:
    """Return a sentence on the rows that are left out; empty if there are none."""
    if not rows:
        return ""
    named = ", ".join(map(str, rows[:_NAMED_ROWS]))
    more = f" and {len(rows) - _NAMED_ROWS:,} more" if len(rows) > _NAMED_ROWS else ""
    return f"Invalid rows of the decision log are left out: {named}{more}."


class RowCheck:
    """A check of the rows of one log, each of which it looks at once; any number of threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: tuple[int, str] | None = None
        self._checked: tuple[int, ...] = ()
        self._found: list[UnreadableRow] = []

    def leave_out_invalid(self, connection: sqlite3.Connection) -> list[UnreadableRow]:
        """Let a connection see the valid rows only, and return the invalid ones.

        Call it in a transaction, before anything is appended.
        """
        with self._lock:
            if not self._is_same_log(connection):
                self._checked, self._found = (0,) * len(_RULES), []
            newest = connection.execute(_NEWEST).fetchone()
            if any(number > checked for number, checked in zip(newest, self._checked, strict=True)):
                self._found = list(dict.fromkeys([*self._found, *_invalid_rows(connection, self._checked)]))
                self._checked = tuple(map(max, newest, self._checked))
                self._newest = connection.execute(f"{_GROUPS} ORDER BY id DESC LIMIT 1").fetchone()
            found = self._found
        if found:
            for table, rules in _RULES.items():
                connection.execute(f"CREATE TEMP VIEW {table} AS SELECT * FROM main.{table} t WHERE {_all(rules, 't')}")
        return found

    def start_again(self) -> None:
        """Check every row again: one of those that were valid is not."""
        with self._lock:
            self._newest, self._checked = None, ()

    def _is_same_log(self, connection: sqlite3.Connection) -> bool:
        """Return whether the known rows are those of this file, rather than of one that a backup has replaced."""
        if not self._checked:
            return False
        return (
            self._newest is None
            or self._newest == connection.execute(f"{_GROUPS} AND id = ?", self._newest[:1]).fetchone()
        )


_GROUPS = f"SELECT id, at FROM main.groups WHERE id BETWEEN 1 AND {LARGEST_ID}"
_NEWEST = "SELECT " + ", ".join(
    f"(SELECT coalesce(max({key}), 0) FROM main.{table} WHERE {key} BETWEEN 1 AND {LARGEST_ID})"
    for table, key in _KEYS.items()
)


def _invalid_rows(connection: sqlite3.Connection, after: Sequence[int]) -> list[UnreadableRow]:
    """Return the invalid rows of each table with numbers above those in ``after``, or with invalid numbers."""
    connection.execute(f"CREATE TEMP VIEW groups AS SELECT * FROM main.groups t WHERE {_all(_RULES['groups'], 't')}")
    found = []
    for (table, rules), number in zip(_RULES.items(), after, strict=True):
        key = _KEYS[table]
        first = " ".join(
            f"WHEN NOT coalesce({condition.format(t='t')}, 0) THEN '{column.strip()}'"
            for column, condition in rules.items()
        )
        query = (
            f"SELECT t.{key}, CASE {first} END FROM main.{table} t "
            f"WHERE (t.{key} > ? OR t.{key} < 1) AND NOT ({_all(rules, 't')}) ORDER BY 1"
        )
        found += [UnreadableRow(table, int(row), column) for row, column in connection.execute(query, (number,))]
    connection.execute("DROP VIEW temp.groups")
    return found
