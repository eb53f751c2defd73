"""The file of the log: created as a whole, refused unaltered, and read where nothing can be written."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import core.decisions.database as database
from core.decisions.log import Decision, DecisionLog, Item
from core.decisions.schema import APPLICATION_ID
from core.runtime.errors import UserError
from tests.decisions.sqlite_errors import sqlite_code
from tests.decisions.test_log_together import first_version

ROOT = Path(__file__).parents[2]
CAT = Item("image", image_id="cat.png")


def files(folder: Path) -> dict[str, str]:
    """Return every file of a folder with its hash."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def database_with(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def filled(path: Path, decisions: int = 300) -> Path:
    log = DecisionLog(path)
    log.append([Decision(Item("image", image_id=f"{n}.png"), "keep", reviewer="Ann") for n in range(decisions)])
    return path


def cut(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with filled(path).open("r+b") as stream:
            stream.truncate(size)

    return make


def with_bytes(old: bytes, new: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(filled(path).read_bytes().replace(old, new, 1))


def without(statement: str) -> Callable[[Path], None]:
    return lambda path: database_with(filled(path), statement)


def of_another_program(*pragmas: str) -> Callable[[Path], None]:
    return lambda path: database_with(path, "CREATE TABLE moz_places (id INTEGER PRIMARY KEY, url TEXT)", *pragmas)


def in_use_by_another_program(path: Path) -> None:
    """Leave a database with what was not yet written into it beside it, as after a crash."""
    live = path.with_name("live")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE mine (a)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("INSERT INTO mine VALUES (1)")
        connection.commit()
        shutil.copy(live, path)
        shutil.copy(f"{live}-wal", f"{path}-wal")
    live.unlink()


REFUSED: dict[str, tuple[Callable[[Path], Any], int]] = {
    "0 bytes": (cut(0), sqlite3.SQLITE_NOTADB),
    "1 byte": (cut(1), sqlite3.SQLITE_NOTADB),
    "a page": (cut(4096), sqlite3.SQLITE_CORRUPT),
    "half": (cut(20480), sqlite3.SQLITE_CORRUPT),
    "text": (lambda path: path.write_text("verdict,image_id\n" * 900), sqlite3.SQLITE_NOTADB),
    "another program's": (of_another_program(), sqlite3.SQLITE_NOTADB),
    "another program's, version 2": (of_another_program("PRAGMA user_version = 2"), sqlite3.SQLITE_NOTADB),
    "another program's, version 77": (of_another_program("PRAGMA user_version = 77"), sqlite3.SQLITE_NOTADB),
    "an empty one of another program": (
        lambda path: database_with(path, "PRAGMA application_id = 7", "CREATE TABLE t (a)", "DROP TABLE t"),
        sqlite3.SQLITE_NOTADB,
    ),
    "another program's in use": (in_use_by_another_program, sqlite3.SQLITE_NOTADB),
    "own tables of the same names": (
        lambda path: database_with(
            path, "CREATE TABLE groups (id)", "CREATE TABLE entries (id)", "PRAGMA user_version = 3"
        ),
        sqlite3.SQLITE_CORRUPT,
    ),
    "without a trigger": (without("DROP TRIGGER entries_UPDATE"), sqlite3.SQLITE_CORRUPT),
    "without a table": (without("DROP TABLE tokens"), sqlite3.SQLITE_CORRUPT),
    "without a column": (without("ALTER TABLE entries DROP COLUMN cause"), sqlite3.SQLITE_CORRUPT),
    "without its version": (without("PRAGMA user_version = 0"), sqlite3.SQLITE_CORRUPT),
    "with a negative version": (without("PRAGMA user_version = -1"), sqlite3.SQLITE_CORRUPT),
    "a damaged schema": (with_bytes(b"TRIGGER", b"TR\xc3GGER"), sqlite3.SQLITE_CORRUPT),
    "newer": (without("PRAGMA user_version = 4"), sqlite3.SQLITE_MISMATCH),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_log_is_refused_and_nothing_is_altered_or_left_beside_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "decisions.sqlite"
    make, code = REFUSED[kind]
    make(path)
    before = files(tmp_path)
    for _ in range(2):
        with pytest.raises(database.LogFileError, match=str(path)) as refused:
            DecisionLog(path)
        assert sqlite_code(refused.value) == code
        assert files(tmp_path) == before


def test_pipes_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(UserError, match=name):
            DecisionLog(tmp_path / name)


def test_a_file_that_an_earlier_version_began_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    database_with(path, "PRAGMA journal_mode = WAL")  # what it wrote first, before any table
    assert path.stat().st_size
    log = DecisionLog(path)
    log.append([Decision(CAT, "keep", reviewer="Ann")])
    assert len(DecisionLog(path).current()) == 1


def test_a_log_of_the_first_version_in_use_is_read_with_what_is_beside_it(tmp_path: Path) -> None:
    first_version(tmp_path / "log")
    path = tmp_path / "decisions.sqlite"
    with closing(sqlite3.connect(tmp_path / "log", isolation_level=None)) as connection:
        connection.execute("INSERT INTO groups VALUES (9, 9, NULL, '2026-01-01T00:00:09.000+00:00', 'Ann')")
        connection.execute("INSERT INTO entries VALUES (9, 9, 'image', '', '', 'new.png', 'keep', NULL, '', 'Ann', '')")
        shutil.copy(tmp_path / "log", path)
        shutil.copy(tmp_path / "log-wal", f"{path}-wal")
    assert Item("image", image_id="new.png") in DecisionLog(path).current()


def test_a_new_log_is_marked_as_one_and_has_nothing_beside_it(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "new" / "decisions.sqlite")
    log.append([Decision(CAT, "keep", reviewer="Ann")])
    assert [path.name for path in log.path.parent.iterdir()] == [log.path.name]
    with closing(sqlite3.connect(log.path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


CREATOR = """
import os, sys
from pathlib import Path
from core.decisions.log import DecisionLog
target, killed_at = sys.argv[1], int(sys.argv[2])
calls = 0
def hook(event, args):
    global calls
    if event.startswith(("open", "os.", "sqlite3.")) and target in str(args):
        calls += 1
        if calls == killed_at:
            os.kill(os.getpid(), 9)
sys.addaudithook(hook)
DecisionLog(Path(target) / "decisions.sqlite")
print(calls)
"""


def create(folder: Path, killed_at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CREATOR, str(folder), str(killed_at)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_kill_at_any_step_of_the_creation_leaves_no_log_or_a_whole_one(tmp_path: Path) -> None:
    steps = int(create(tmp_path / "whole", 0).stdout)
    assert steps > 5
    for step in range(1, steps + 1):
        folder = tmp_path / str(step)
        assert create(folder, step).returncode == -signal.SIGKILL
        path = folder / "decisions.sqlite"
        assert not path.exists() or path.stat().st_size > 4096
        log = DecisionLog(path)
        log.append([Decision(CAT, "keep", reviewer="Ann")])
        assert len(log.current()) == 1


@pytest.mark.parametrize("has_links", [True, False])
def test_a_log_that_another_process_creates_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    path, link = tmp_path / "decisions.sqlite", os.link

    filled(tmp_path / "other", 3)

    def after_another(source: Path, target: Path) -> None:
        shutil.copy(tmp_path / "other", path)
        if not has_links:
            raise OSError(errno.EPERM, "no hard links here")
        link(source, target)

    monkeypatch.setattr(os, "link", after_another)
    assert len(DecisionLog(path).current()) == 3
    (tmp_path / "other").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["decisions.sqlite"]


def test_without_hard_links_a_log_is_created_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    DecisionLog(tmp_path / "decisions.sqlite").append([Decision(CAT, "keep", reviewer="Ann")])
    assert [path.name for path in tmp_path.iterdir()] == ["decisions.sqlite"]


def test_a_log_that_is_removed_while_open_is_missed_and_not_made_anew(tmp_path: Path) -> None:
    log = DecisionLog(filled(tmp_path / "decisions.sqlite"))
    log.path.unlink()
    for act in (log.current, log.version, lambda: log.undo("Ann")):
        with pytest.raises(database.LogFileError) as refused:
            act()
        assert sqlite_code(refused.value) == sqlite3.SQLITE_CANTOPEN
    assert not log.path.exists()


class ReadOnly:
    """A folder that ``os.access`` and, for other users than root, the system say cannot be written."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch, self.is_read_only = folder, monkeypatch, False
        access, opened = os.access, os.open

        def is_allowed(path: Any, mode: int) -> bool:
            return not (self._holds(path) and mode & os.W_OK) and access(path, mode)

        def open_file(path: Any, flags: int, *more: Any, **options: Any) -> int:
            if self._holds(path) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
            return opened(path, flags, *more, **options)

        monkeypatch.setattr(os, "access", is_allowed)
        monkeypatch.setattr(os, "open", open_file)
        connect, mkdir = sqlite3.connect, Path.mkdir

        def connect_reading(target: Any, **options: Any) -> sqlite3.Connection:
            if self._holds(str(target).removeprefix("file://").partition("?")[0]) and "immutable=1" not in target:
                raise sqlite3.OperationalError("attempt to write a readonly database")
            return connect(target, **options)

        def make_folder(path: Path, *more: Any, **options: Any) -> None:
            if self._holds(path) and not path.is_dir():
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            mkdir(path, *more, **options)

        monkeypatch.setattr(sqlite3, "connect", connect_reading)
        monkeypatch.setattr(Path, "mkdir", make_folder)
        real_open = Path.open

        def path_open(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
            if self._holds(path) and set(mode) & set("wax+"):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real_open(path, mode, *more, **options)

        monkeypatch.setattr(Path, "open", path_open)

    def _holds(self, path: Any) -> bool:
        return self.is_read_only and isinstance(path, str | Path) and Path(path).is_relative_to(self.folder)


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadOnly:
    (tmp_path / "workspace").mkdir()
    return ReadOnly(tmp_path / "workspace", monkeypatch)


def refuses_to_write(log: DecisionLog) -> None:
    for act in (
        lambda: log.append([Decision(CAT, "keep", reviewer="Ann")]),
        lambda: log.undo("Ann"),
        lambda: log.comment(CAT, "Ann", "hm"),
        lambda: log.snapshot("a", "Ann"),
    ):
        with pytest.raises(database.LogFileError) as refused:
            act()
        assert sqlite_code(refused.value) == sqlite3.SQLITE_READONLY


def test_everything_is_read_where_nothing_can_be_written(frozen: ReadOnly) -> None:
    path = filled(frozen.folder / "decisions.sqlite")
    open_before = DecisionLog(path)
    comment, snapshot = open_before.comment(CAT, "Ann", "hm"), open_before.snapshot("a", "Ann")
    before = files(frozen.folder)
    frozen.is_read_only = True
    for log in (open_before, DecisionLog(path)):
        assert len(log.current()) == len(log.history()) == len(log.decisions_of("Ann")) == 300
        assert (log.comments(), log.snapshots(), log.conflicts()) == ([comment], [snapshot], {})
        assert (log.version(), log.change_counter(), len(log.state("a"))) == (1, 3, 300)
        refuses_to_write(log)
    assert files(frozen.folder) == before
    frozen.is_read_only = False
    log.undo("Ann")
    assert not log.current()
    frozen.is_read_only = True
    assert not log.current()  # the copy is made again


def test_decisions_that_a_crash_left_beside_a_read_only_log_are_read(frozen: ReadOnly) -> None:
    live = filled(frozen.folder.parent / "live", 3)
    path = frozen.folder / "decisions.sqlite"
    with closing(sqlite3.connect(live, isolation_level=None)):
        reader = sqlite3.connect(live)  # the last connection to close would write the decisions into the file
        reader.execute("SELECT count(*) FROM entries").fetchone()
        DecisionLog(live).append([Decision(CAT, "remove", reviewer="Bob")])
        shutil.copy(live, path)
        shutil.copy(f"{live}-wal", f"{path}-wal")
        reader.close()
    frozen.is_read_only = True
    before = files(frozen.folder)
    log = DecisionLog(path)
    assert log.current()[CAT].verdict == "remove"
    assert len(log.current()) == 4
    refuses_to_write(log)
    assert files(frozen.folder) == before


def test_a_read_only_log_of_the_first_version_is_read(frozen: ReadOnly) -> None:
    path = frozen.folder / "decisions.sqlite"
    first_version(path)
    frozen.is_read_only = True
    before = files(frozen.folder)
    log = DecisionLog(path)
    assert log.current()[CAT].label == 3
    assert log.comments() == []
    assert files(frozen.folder) == before


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_an_absent_log_that_cannot_be_created_is_empty_until_it_can(
    frozen: ReadOnly, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = frozen.folder / "decisions.sqlite"
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        patch.setattr(database.os, "fsync", refuse)
        log = DecisionLog(path)
        assert (log.current(), log.comments(), log.version(), log.unreadable_rows()) == ({}, [], 0, [])
        with pytest.raises(database.LogFileError) as refused:
            log.append([Decision(CAT, "keep", reviewer="Ann")])
        full = number == errno.ENOSPC
        assert sqlite_code(refused.value) == (sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_READONLY)
        assert files(frozen.folder) == {}
    log.append([Decision(CAT, "keep", reviewer="Ann")])
    assert len(log.current()) == len(DecisionLog(path).current()) == 1


def test_a_log_in_a_folder_that_may_not_be_searched_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    path = filled(tmp_path / "decisions.sqlite")
    monkeypatch.setattr(Path, "lstat", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(database.LogFileError) as refused:
        DecisionLog(path)
    assert sqlite_code(refused.value) == sqlite3.SQLITE_PERM


CODES = {
    sqlite3.SQLITE_IOERR_FSYNC: sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_IOERR_READ: sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY_DIRECTORY: sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN_ISDIR: sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL: sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_NOMEM: sqlite3.SQLITE_NOMEM,
}


class Failing(sqlite3.Connection):
    """A connection whose statements that begin with ``verb`` fail with ``code``."""

    verb, code = "", 0

    def execute(self, statement: str, *more: Any) -> sqlite3.Cursor:
        if self.verb and statement.strip().startswith(self.verb):
            error = sqlite3.OperationalError("disk I/O error" if self.code & 0xFF == sqlite3.SQLITE_IOERR else "failed")
            error.sqlite_errorcode, error.sqlite_errorname = self.code, "SQLITE_SOMETHING"
            raise error
        return super().execute(statement, *more)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("verb", ["BEGIN", "INSERT", "COMMIT"])
def test_errors_of_the_disk_are_explained_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, code: int
) -> None:
    log, connect = DecisionLog(filled(tmp_path / "decisions.sqlite", 2)), sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *a, **b: connect(*a, **b, factory=Failing))
        patch.setattr(Failing, "verb", verb)
        patch.setattr(Failing, "code", code)
        with pytest.raises(database.LogFileError) as refused:
            log.comment(CAT, "Ann", "hm")
        assert sqlite_code(refused.value) == CODES[code]
    assert log.comments() == []


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_READONLY_CANTINIT, sqlite3.SQLITE_FULL])
def test_a_log_whose_side_files_cannot_be_made_is_read_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path, connect = filled(tmp_path / "decisions.sqlite", 5), sqlite3.connect
    log = DecisionLog(path)

    def connected(target: str, **options: Any) -> sqlite3.Connection:
        return connect(target, **options, **({"factory": Failing} if str(tmp_path) in target else {}))

    monkeypatch.setattr(sqlite3, "connect", connected)
    monkeypatch.setattr(Failing, "verb", "SELECT 1 FROM main.sqlite_master")
    monkeypatch.setattr(Failing, "code", code)
    assert len(log.current()) == 5


def test_the_copy_of_a_log_that_cannot_be_written_is_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process would leave it behind."""
    path, folder = tmp_path / "decisions.sqlite", tmp_path / "memory"
    folder.mkdir()
    DecisionLog(path).append([Decision(Item("image", image_id="a"), "keep", reviewer="Ann")])
    monkeypatch.setattr("core.decisions.database._MEMORY", folder)
    monkeypatch.setattr("core.decisions.database.LogFile._is_writable", lambda file: file.path != path)
    log = DecisionLog(path)
    assert len(log.history()) == 1
    assert list(folder.iterdir()) == []
