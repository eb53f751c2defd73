"""What cancelled and killed work leaves goes after a while, never what a process uses or may still resume."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from pathlib import Path

import pytest

from core.runtime.errors import TransientError
from core.runtime.replacing import ABANDONED_SECONDS
from core.workspace.leftovers import delete_leftovers, delete_temporaries, locked
from core.workspace.runs import Runs, RunWriter

NAME = "rank-0123456789ab"
OLD, YOUNG = ABANDONED_SECONDS + 3600, ABANDONED_SECONDS - 3600


def age(path: Path, seconds: float) -> None:
    at = time.time() - seconds
    for part in (*path.rglob("*"), path):
        os.utime(part, (at, at))


def unfinished(runs: Path, seconds: float) -> Path:
    folder = runs / f".{NAME}"
    (folder / "memory").mkdir(parents=True)
    (folder / "memory" / "000000.npz").write_bytes(b"steps")
    (runs / f".{NAME}.lock").touch()
    age(folder, seconds)
    age(runs / f".{NAME}.lock", seconds)
    return folder


@pytest.mark.parametrize(("seconds", "remains"), [(OLD, False), (YOUNG, True), (-OLD, True)])
def test_unfinished_work_goes_after_a_while(tmp_path: Path, seconds: float, remains: bool) -> None:
    folder = unfinished(tmp_path, seconds)
    delete_leftovers(tmp_path)
    assert folder.exists() == (tmp_path / f".{NAME}.lock").exists() == remains


def test_one_recent_step_keeps_all(tmp_path: Path) -> None:
    folder = unfinished(tmp_path, OLD)
    (folder / "memory" / "000001.npz").write_bytes(b"recent")
    delete_leftovers(tmp_path)
    assert (folder / "memory" / "000000.npz").exists()


def test_work_in_progress_stays(tmp_path: Path) -> None:
    folder = unfinished(tmp_path, OLD)
    with locked(tmp_path, NAME) as is_locked:
        assert is_locked
        age(tmp_path / f".{NAME}.lock", OLD)
        delete_leftovers(tmp_path)
        assert folder.exists()


def test_a_former_run_that_is_the_only_one_is_put_back(tmp_path: Path) -> None:
    replaced = tmp_path / f".{NAME}.replaced"
    replaced.mkdir()
    (replaced / "figures.json").write_text("{}")
    age(replaced, OLD)
    delete_leftovers(tmp_path)
    assert (tmp_path / NAME / "figures.json").exists()
    replaced.mkdir()
    age(replaced, OLD)
    delete_leftovers(tmp_path)
    assert not replaced.exists()
    assert (tmp_path / NAME / "figures.json").exists()


def test_temporary_files_go_after_a_while(tmp_path: Path) -> None:
    names = {".set.json.0123456789ab": OLD, ".new.json.0123456789ab": YOUNG, ".hidden": OLD, "set.json": OLD}
    for name, seconds in names.items():
        (tmp_path / name).touch()
        age(tmp_path / name, seconds)
    only = tmp_path / ".cleaned.0123456789ab.old"
    only.mkdir()
    age(only, OLD)
    delete_temporaries([tmp_path, tmp_path / "missing"])
    assert {path.name for path in tmp_path.iterdir()} == {*names, only.name} - {".set.json.0123456789ab"}


def test_a_computed_run_cleans_up(tmp_path: Path) -> None:
    folder = unfinished(tmp_path, OLD)

    def compute(run: RunWriter) -> None:
        run.write_json("figures.json", {})

    Runs(tmp_path).get_or_compute("evaluate", {}, compute)
    assert not folder.exists()


def test_where_nothing_can_be_written_leftovers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unfinished(tmp_path, OLD)

    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    monkeypatch.setattr(os, "open", refuse)
    delete_leftovers(tmp_path)
    assert folder.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO])
def test_a_lock_that_cannot_be_had_is_no_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(TransientError, match=re.escape(os.strerror(code).lower()[1:])), locked(tmp_path, NAME):
        pass
