"""The file of the decision log: connections, transactions, and errors that say what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from core.decisions.schema import SCHEMA_VERSION, file_version, upgrade
from core.runtime.errors import UserError


class LogFile:
    """The SQLite file ``path``, created or upgraded to the present schema where needed.

    Every call has its own connection, so any number of threads and processes may use the file at once, and between two
    calls everything written is in this one file.

    Raises:
        UserError: the file is locked for longer than ``busy_seconds``, full, damaged or of a newer version.
    """

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self.path, self.busy_seconds = path, busy_seconds
        with self._user_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._connected() as connection:
                # If another process is writing, the next opening switches the mode.
                with suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA journal_mode = WAL")
                if file_version(connection) == SCHEMA_VERSION:
                    return
                connection.execute("BEGIN IMMEDIATE")
                if (version := file_version(connection)) > SCHEMA_VERSION:
                    raise UserError(
                        f"{path} was written by a newer version of TaskLens (format {version}, "
                        f"this one reads up to {SCHEMA_VERSION}).",
                        "Update TaskLens; the decisions in it are untouched.",
                    )
                upgrade(connection)
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


def encode_text(value: str) -> bytes:
    """Return any string as bytes for ``CAST(? AS TEXT)``; SQLite's text binding refuses names of undecodable files."""
    return value.encode("utf-8", "surrogatepass")
