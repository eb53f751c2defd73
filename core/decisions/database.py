"""The file of the decision log: its creation, connections and transactions, and errors that say what to do."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from core.decisions.schema import (
    SCHEMA_VERSION,
    LogFileError,
    check_pages,
    check_schema,
    damage_error,
    empty_log,
    upgrade,
)
from core.runtime.disk_errors import FULL_DISK
from core.runtime.files import check_regular_file
from core.runtime.replacing import flush_to_disk

_SIDE_FILES = ("-wal", "-journal")
"""Files beside the log that hold part of its content while it is in use, or after a crash."""
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NOT_IN_PLACE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
"""Errors of reading a log in a folder where SQLite cannot write the files that it needs beside it."""
_MEMORY = Path("/dev/shm")  # copies fit there even if the disks are full
_COPY_ATTEMPTS = 5
_SMALLEST_PAGE = 512
"""Bytes of the smallest page that a file of SQLite can have, and so of the smallest file."""


class LogFile:
    """The SQLite file ``path``, created or upgraded to the present schema where needed.

    Every call has its own connection, so any number of threads and processes may use the file at once, and between two
    calls everything written is in this one file. Where the file or its folder cannot be written, a copy in memory is
    read, which is made again when the file has changed; an absent log is then empty.

    Args:
        name: What errors call the file; default: ``path``.
    """

    def __init__(self, path: Path, busy_seconds: float, name: Path | None = None) -> None:
        self.path, self.busy_seconds, self.name = path.absolute(), busy_seconds, name or path
        self._copy: tuple[object, bytes] | None = None
        self._copying = threading.Lock()
        self._is_ready = False
        """Whether the file was checked and has the present schema."""
        with self._user_errors():
            try:
                self._prepare()
            except (sqlite3.OperationalError, OSError) as error:
                if not _needs_place(error):
                    raise
                # Reads work all the same; the first write tries again, and says why it fails.
                if self._exists():
                    self._readable_copy()

    @contextmanager
    def transaction(self, mode: Literal["", "IMMEDIATE"] = "", *, keep: bool = True) -> Iterator[sqlite3.Connection]:
        """Run a transaction: it is on disk when the block ends, or rolled back after an error.

        Args:
            keep: False: run it on a copy in memory, which is dropped; other processes can write meanwhile.
        """
        with self._user_errors(), self._connected(mode == "IMMEDIATE") as connection:
            if not keep:
                with _memory_copy(connection) as copy:
                    copy.execute("BEGIN")
                    yield copy
                return
            connection.execute(f"BEGIN {mode}")
            yield connection
            connection.execute("COMMIT")

    # ---- creating

    def _prepare(self) -> None:
        """Create or upgrade the file where needed."""
        if not self._exists():
            self._create()
        self._check_unopened()
        if not self._is_writable():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.path))
        self._open()
        self._is_ready = True

    def _create(self) -> None:
        """Create the log as a whole: a kill leaves no file or a complete one, and never replaces another's."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}")
        try:
            with temporary.open("xb") as stream:
                stream.write(empty_log())
                stream.flush()
                os.fsync(stream.fileno())
            self._move_to_absent(temporary)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        flush_to_disk(self.path.parent)

    def _move_to_absent(self, temporary: Path) -> None:
        """Give a file the name of the log, unless another process has created the log meanwhile."""
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)  # released by the kernel if this process is killed
                if not self._exists():
                    temporary.rename(self.path)
            finally:
                os.close(folder)

    # ---- opening

    def _check_unopened(self) -> None:
        """Refuse what is no log without altering it: SQLite itself deletes or creates files beside the one it opens."""
        size = check_regular_file(self.path).st_size
        if size < _SMALLEST_PAGE:  # SQLite takes a file of one byte for an empty database
            raise LogFileError(
                f"{self.name} is empty." if not size else f"{self.name} is cut off: its size is {size} B.",
                "Put a backup in its place. If there were no decisions yet, delete the file to start a new log: an "
                "earlier version that was interrupted could leave an empty one.",
                sqlite3.SQLITE_NOTADB,
            )
        has_side_files = any(os.path.lexists(f"{self.path}{ending}") for ending in _SIDE_FILES)
        try:
            with self._opened("mode=ro&immutable=1") as connection:
                check_schema(connection, self.name)
        except (sqlite3.Error, LogFileError) as error:
            # What is beside the file may complete it, unless it is of another kind.
            if not has_side_files or getattr(error, "code", None) == sqlite3.SQLITE_NOTADB:
                raise

    def _open(self) -> None:
        with self._opened("mode=rw") as connection:
            version = check_schema(connection, self.name)
            check_pages(connection, self.name)
            # If another process is writing, the next opening switches the mode.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode = WAL")
            if version == SCHEMA_VERSION:
                return
            connection.execute("BEGIN IMMEDIATE")
            upgrade(connection, check_schema(connection, self.name))
            connection.execute("COMMIT")

    def _exists(self) -> bool:
        """Return whether there is a file; raise OSError if its folder may not be searched, as one could be there."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            return False
        return True

    def _is_writable(self) -> bool:
        return os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK | os.X_OK)

    @contextmanager
    def _connected(self, for_writing: bool) -> Iterator[sqlite3.Connection]:
        """Open a connection for one call; what is not committed when it closes is rolled back."""
        is_absent = not self._exists()
        if for_writing and not self._is_ready:
            self._prepare()
        elif for_writing and not is_absent and not self._is_writable():
            raise self._error(sqlite3.SQLITE_READONLY)
        if is_absent and not self._is_ready and not for_writing:
            with _in_memory(empty_log()) as connection:
                yield connection
            return
        if for_writing or is_absent or (self._is_ready and self._is_writable()):
            with self._opened("mode=rw") as connection:  # never creates a file: the log may have been removed meanwhile
                if for_writing or self._can_read(connection):
                    yield connection
                    return
        with _in_memory(self._readable_copy()) as connection:
            yield connection

    def _can_read(self, connection: sqlite3.Connection) -> bool:
        """Return whether SQLite can create the files that it needs to read the log."""
        try:
            connection.execute("SELECT 1 FROM main.sqlite_master LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            if not _needs_place(error) or not self._exists():
                raise
            return False
        return True

    @contextmanager
    def _opened(self, parameters: str) -> Iterator[sqlite3.Connection]:
        uri, timeout = f"{self.path.as_uri()}?{parameters}", self.busy_seconds
        with closing(sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)) as connection:
            _configure(connection)
            yield connection

    # ---- reading where nothing can be written

    def _readable_copy(self) -> bytes:
        """Return the content of the log as it is now, upgraded if it is of an earlier version."""
        with self._copying:
            version = self._content_version()
            if self._copy is None or self._copy[0] != version:
                self._copy = self._copied()
            return self._copy[1]

    def _copied(self) -> tuple[object, bytes]:
        try:
            with tempfile.TemporaryDirectory(prefix="tasklens-log-", dir=_MEMORY) as folder:
                return self._copied_into(Path(folder))
        except OSError:
            with tempfile.TemporaryDirectory(prefix="tasklens-log-") as folder:
                return self._copied_into(Path(folder))

    def _copied_into(self, folder: Path) -> tuple[object, bytes]:
        for _ in range(_COPY_ATTEMPTS):
            version, copy = self._content_version(), folder / self.path.name
            for ending in ("", *_SIDE_FILES):
                Path(f"{copy}{ending}").unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    shutil.copyfile(f"{self.path}{ending}", f"{copy}{ending}")
            if self._content_version() == version:
                with LogFile(copy, self.busy_seconds, self.name)._opened("mode=rw") as connection:
                    connection.execute("PRAGMA journal_mode = DELETE")  # the other mode needs files
                    return version, connection.serialize()
        raise self._error(sqlite3.SQLITE_BUSY)

    def _content_version(self) -> object:
        """Return what differs whenever the content of the file does."""
        return tuple(map(_stat, (f"{self.path}{ending}" for ending in ("", *_SIDE_FILES))))

    # ---- errors

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR), error) from error
        except UnicodeDecodeError as error:  # of sqlite3 itself, about a message that quotes damaged bytes
            raise damage_error(self.name, error.object.decode("utf-8", "replace")) from error
        except OSError as error:
            if error.errno in FULL_DISK:
                raise self._error(sqlite3.SQLITE_FULL) from error
            if error.errno in _NOT_ALLOWED:
                may_read = os.access(self.path.parent, os.X_OK) and (
                    not os.path.lexists(self.path) or os.access(self.path, os.R_OK)
                )
                raise self._error(sqlite3.SQLITE_READONLY if may_read else sqlite3.SQLITE_PERM) from error
            what = f"{self.name} cannot be used: {error.strerror}."
            raise LogFileError(what, "Choose another folder.", sqlite3.SQLITE_CANTOPEN) from error

    def _error(self, code: int, error: sqlite3.Error | None = None) -> LogFileError:
        """Return the error for a result code of SQLite, in words."""
        path, primary = self.name, code & 0xFF
        again = "Nothing saved earlier is lost."
        reason = getattr(error, "sqlite_errorname", "") or str(error or "")
        match primary:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                what = f"{path} is in use by another program, so this was not saved or read."
                fix = f"{again} Try again in a moment."
            case sqlite3.SQLITE_FULL:
                what = f"The disk is full: this was not saved in {path}."
                fix = f"{again} Free some space and try again."
            case sqlite3.SQLITE_PERM:
                what = f"You may not read {path} or its folder."
                fix = f"{again} Ask its owner for permission."
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_AUTH:
                what = f"{path} or its folder is read-only, so this was not saved."
                fix = f"{again} Make both writable, or copy the workspace to a folder where you may write."
            case sqlite3.SQLITE_CANTOPEN if not os.path.lexists(self.path):
                what = f"{path} was removed while it was open, so this was not saved or read."
                fix = "Put it back, or open the workspace again to start a new log."
            case sqlite3.SQLITE_CANTOPEN:
                what = f"{path} cannot be opened, so this was not saved or read."
                fix = f"{again} Check that it is a file, and that you may read and write it and its folder."
            case sqlite3.SQLITE_IOERR:
                what = f"The disk reported an error at {path} ({reason}), so this was not saved or read."
                fix = f"{again} Check that the disk is connected and has free space, then try again."
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                damaged = damage_error(path, str(error))
                what, fix = damaged.what, damaged.fix
            case _:
                what = f"{path} cannot be used ({error}), so this was not saved or read."
                fix = f"{again} Check the disk and the folder's permissions, then try again."
        return LogFileError(what, fix, primary)


def _needs_place(error: sqlite3.Error | OSError) -> bool:
    """Return whether an error says that something cannot be written, rather than that it cannot be read."""
    if isinstance(error, OSError):
        return error.errno in FULL_DISK or error.errno in _NOT_ALLOWED
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_IN_PLACE


@contextmanager
def _in_memory(content: bytes) -> Iterator[sqlite3.Connection]:
    """Open a log in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(content)
        _configure(connection)
        yield connection


@contextmanager
def _memory_copy(source: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Copy a log into memory as it is now, and open the copy."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        source.backup(connection)
        _configure(connection)
        yield connection


def _configure(connection: sqlite3.Connection) -> None:
    connection.text_factory = _decode_text
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")  # reading needs no disk
    connection.execute("PRAGMA trusted_schema = OFF")


def encode_text(value: str) -> bytes:
    """Return any string as bytes for ``CAST(? AS TEXT)``; SQLite's text binding refuses names of undecodable files."""
    return value.encode("utf-8", "surrogatepass")


def _decode_text(raw: bytes) -> str:
    """Return a text of the file; damaged bytes become U+FFFD, so that they hide no other row."""
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
