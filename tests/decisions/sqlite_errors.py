"""The SQLite error behind an error of the decision log."""

from __future__ import annotations

import sqlite3


def sqlite_code(error: Exception) -> int:
    """Return the primary result code of the database error that caused another one."""
    assert isinstance(error.__cause__, sqlite3.Error)
    return error.__cause__.sqlite_errorcode & 0xFF
