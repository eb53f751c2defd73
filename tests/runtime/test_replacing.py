"""Files and folders are replaced as a whole or not at all; what killed writers left is cleared by the next one."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from core.runtime import files
from core.runtime import replacing as module
from core.runtime.disk_errors import disk_error, disk_errors, error_code
from core.runtime.errors import TransientError, UserError
from core.runtime.files import check_regular_file, read_json, write_json
from core.runtime.replacing import copy_folder, delete_scratch, exchange, replacing, replacing_folder, write_array


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_a_file_is_replaced_only_on_success(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x", "old")
    with pytest.raises(TypeError), replacing(tmp_path / "a" / "x") as temporary:
        temporary.write_text("half") and temporary.write_text(1)  # type: ignore[arg-type]
    assert names(tmp_path) == ["a", "a/x"]
    assert (tmp_path / "a" / "x").read_text() == "old"


def test_the_next_writer_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / ".x.writing").mkdir()
    (tmp_path / ".x.writing" / "0123").write_text("half")
    (tmp_path / ".x.writing" / ".tmpA1").write_text("of a library")
    write(tmp_path / "x", "new")
    assert names(tmp_path) == ["x"]


def test_a_living_writer_keeps_its_temporary_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "x") as first:
        first.write_text("first")
        write(tmp_path / "x", "second")
        assert first.read_text() == "first"
    assert (tmp_path / "x").read_text() == "first"
    assert names(tmp_path) == ["x"]


def test_only_what_nobody_uses_is_deleted(tmp_path: Path) -> None:
    for name in (".killed.writing/0123", ".folder.writing/4567.old"):
        (tmp_path / name).mkdir(parents=True)
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("new")
        delete_scratch(tmp_path)
    assert names(tmp_path) == [".folder.writing", ".folder.writing/4567.old", "x"]


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def many() -> None:
        try:
            for number in range(40):
                write(tmp_path / "x", f"{number}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=many) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert names(tmp_path) == ["x"]


def test_a_durable_file_is_flushed_before_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    flush, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write(tmp_path / "x", "1")
    assert calls == ["file", "rename", "folder"]
    calls.clear()
    with replacing(tmp_path / "x", durable=False) as temporary:
        temporary.write_text("2")
    assert calls == ["rename"]


def test_a_link_is_followed_and_a_device_refused(tmp_path: Path) -> None:
    write(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UserError):
            write(path, "x")
        assert not path.is_file()


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255), "whole")
    assert names(tmp_path) == ["x" * 255]
    with pytest.raises(TransientError):
        write(tmp_path / ("x" * 256), "too long")


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_and_other_files_stay(
    tmp_path: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(module, "exchange", lambda one, other: False)
    for text in ("one", "two"):
        with replacing_folder(tmp_path / "out", {"file"}) as folder:
            (folder / "file").write_text(text)
        (tmp_path / "out" / "notes").write_text("mine")
    assert names(tmp_path) == ["out", "out/file", "out/notes"]
    assert (tmp_path / "out" / "file").read_text() == "two"


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_replacement_that_was_killed_is_completed(tmp_path: Path, point: str) -> None:
    """Before: the old folder has only its other name. After: its other files are not moved yet."""
    old = tmp_path / ".out.writing" / "0123.old"
    old.mkdir(parents=True)
    (old / "file").write_text("old")
    (old / "notes").write_text("mine")
    if point == "after":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "file").write_text("new")
    with replacing_folder(tmp_path / "out", {"file"}) as folder:
        (folder / "file").write_text("newest")
    assert names(tmp_path) == ["out", "out/file", "out/notes"]
    assert (tmp_path / "out" / "file").read_text() == "newest"


def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError), replacing_folder(Path(), ()):
        pass


def test_two_paths_are_exchanged(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if exchange(tmp_path / "a", tmp_path / "b"):
        assert names(tmp_path) == ["a", "a/b", "b", "b/a"]
    with pytest.raises(OSError, match="No such file"):
        exchange(tmp_path / "a", tmp_path / "absent")


def test_a_copy_is_writable_and_can_be_repeated(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "x").write_text("1")
    (source / ".hidden").write_text("no")
    (source / "sub" / "x").chmod(0o400)
    (source / "sub").chmod(0o500)
    for _ in range(2):
        copy_folder(source, tmp_path / "copy", ignore=lambda name: name.startswith("."))
    assert names(tmp_path / "copy") == ["sub", "sub/x"]
    assert (tmp_path / "copy" / "sub").stat().st_mode & stat.S_IWUSR
    (source / "sub").chmod(0o700)


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.zeros((0, 2), np.float32), np.arange(6).reshape(2, 3).T]
)
def test_an_array_is_written_as_numpy_writes_it(tmp_path: Path, array: np.ndarray) -> None:
    write_array(tmp_path / "x.npy", array)
    read = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


CODES = [
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE),
    *(errno.ENFILE, errno.ETXTBSY, errno.ENAMETOOLONG, errno.ESTALE, errno.EINTR, errno.ENOENT, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST, errno.EBUSY, errno.ENOLCK, errno.ENOTCONN, errno.EXDEV, errno.ENOMEM),
]


@pytest.mark.parametrize("code", CODES)
def test_every_code_becomes_a_sentence_with_the_path(code: int, tmp_path: Path) -> None:
    with pytest.raises(TransientError) as raised, disk_errors(tmp_path / "file"):
        raise OSError(code, os.strerror(code), str(tmp_path / ".file.writing" / "0123"))
    assert str(tmp_path / "file") in raised.value.what
    assert ".writing" not in str(raised.value)
    assert "Errno" not in str(raised.value)
    assert raised.value.fix
    assert "/elsewhere" in disk_error(OSError(code, os.strerror(code), "/elsewhere")).what


@pytest.mark.parametrize(
    "error",
    [
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_code_in_the_text_of_a_library_is_found(error: Exception) -> None:
    assert error_code(error) == errno.ENOSPC
    assert error_code(OSError("10 requested and 2 written")) is None


def test_what_a_link_leads_to_is_never_deleted_or_moved(tmp_path: Path) -> None:
    """Somebody else's workspace may have links where temporary files lie."""
    own = tmp_path / "own"
    (own / "folder").mkdir(parents=True)
    (own / "folder" / "precious").write_text("")
    workspace = tmp_path / "workspace"
    (workspace / ".y.writing").mkdir(parents=True)
    (workspace / ".x.writing").symlink_to(own)
    for name in ("link", "0123.old"):
        (workspace / ".y.writing" / name).symlink_to(own)
    with pytest.raises(TransientError):
        write(workspace / "x", "new")
    with replacing_folder(workspace / "y", ()) as new:
        (new / "a").touch()
    delete_scratch(workspace)
    assert names(own) == ["folder", "folder/precious"]
    assert names(workspace / "y") == ["a"]
    assert not (workspace / ".y.writing").exists()


def test_a_copy_to_a_full_disk_names_what_was_not_written() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/source", None, "/target")
    assert "/target" in disk_error(error).what


def test_a_file_that_is_replaced_while_it_is_read_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "x", "short")

    def check(path: Path) -> os.stat_result:
        status = check_regular_file(path)
        write_json(path, "x" * 1000)
        return status

    monkeypatch.setattr(files, "check_regular_file", check)
    assert read_json(tmp_path / "x") == "x" * 1000
