"""The SQLite error behind an error of the decision log."""

from __future__ import annotations

from core.decisions.log import LogFileError


def sqlite_code(error: Exception) -> int:
    """Return the primary result code of an error of the log's file."""
    assert isinstance(error, LogFileError)
    assert error.what
    assert error.fix
    assert "disk I/O error" not in str(error)
    return error.code
