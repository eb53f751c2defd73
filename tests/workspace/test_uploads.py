"""Uploads: stored once, listed with the jobs that use them, limited in total, and never removed from a running job."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.workspace.jobs import Jobs
from core.workspace.uploads import LIMIT_VARIABLE, remove_upload, store_upload, stored_uploads, uploads_folder
from core.workspace.workspace import library_jobs
from tests.cli.shell import Shell


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def job(path: Path, code: str) -> Jobs:
    jobs = Jobs(library_jobs().folder, [sys.executable, "-c", code])
    jobs.start("Import pets", ["data", "--path", str(path)])
    return jobs


def test_there_are_none_at_first() -> None:
    assert stored_uploads() == []


@pytest.mark.parametrize(
    ("name", "stored"),
    [("a b.zip", "a-b.zip"), ("../../etc/passwd", "passwd"), ("", "upload"), (".x" * 99, None), ("𝒙" * 99, None)],
)
def test_names_are_those_of_files_in_the_folder(name: str, stored: str | None) -> None:
    path = store_upload(name, b"content")
    assert path.parents[1] == uploads_folder()
    assert stored is None or path.name == stored
    assert len(path.name.encode()) <= 255
    assert [one.path for one in stored_uploads()] == [path]
    assert store_upload(name, b"content") == path


def test_the_total_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0.000001")  # 1,000 bytes
    first = store_upload("one", b"1" * 600)
    with pytest.raises(UserError, match=LIMIT_VARIABLE):
        store_upload("two", b"2" * 600)
    assert [one.path for one in stored_uploads()] == [first]
    assert store_upload("one", b"1" * 600) == first
    remove_upload(stored_uploads()[0].id)
    assert store_upload("two", b"2" * 600).exists()


@pytest.mark.parametrize("given", ["much", "nan", "inf", "-1"])
def test_a_limit_that_is_no_size_is_named(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, given)
    with pytest.raises(UserError, match=LIMIT_VARIABLE):
        store_upload("one", b"1")


def test_what_a_running_job_uses_is_not_removed(tmp_path: Path) -> None:
    path = store_upload("pets.zip", b"content")
    jobs = job(path, "import time; time.sleep(1000)")
    (upload,) = stored_uploads()
    assert (upload.is_in_use, upload.used_by) == (True, ("Import pets (running)",))
    with pytest.raises(UserError, match="Import pets"):
        remove_upload(upload.id)
    assert path.read_bytes() == b"content"
    jobs.cancel(jobs.all()[0].id)
    while jobs.all()[0].status() == "running":
        time.sleep(0.02)
    assert remove_upload(upload.id) == len(b"content")
    assert (stored_uploads(), path.parent.exists()) == ([], False)


@pytest.mark.parametrize("upload_id", ["", ".", "..", "0" * 16, "*"])
def test_only_uploads_can_be_removed(upload_id: str, home: Path) -> None:
    kept = store_upload("one", b"1")
    with pytest.raises(UserError, match="no upload"):
        remove_upload(upload_id)
    assert kept.exists()


def test_the_command_lists_and_removes(tmp_path: Path) -> None:
    one, two = store_upload("one.zip", b"1"), store_upload("two.zip", b"2")
    shell = Shell(tmp_path)
    listed = [line.split("\t") for line in shell.done("uploads").out]
    assert {(row[0], row[3]) for row in listed} == {(path.parent.name, path.name) for path in (one, two)}
    shell.done("uploads", "--remove", one.parent.name)
    assert (one.exists(), two.exists()) == (False, True)
    assert shell("uploads", "--remove", one.parent.name).code == 2


def test_what_is_behind_a_link_is_no_upload(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "theirs").write_text("theirs")
    uploads_folder().mkdir(parents=True)
    (uploads_folder() / ("b" * 16)).symlink_to(tmp_path / "other")
    assert stored_uploads() == []
    with pytest.raises(UserError):
        remove_upload("b" * 16)
    assert (tmp_path / "other" / "theirs").exists()
