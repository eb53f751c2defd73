"""The folders below which the dashboard reads paths that people give."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.roots import OWN_DATA, ROOTS_VARIABLE, check_below_roots, restrict, roots


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only root beside the folder of TaskLens."""
    monkeypatch.setenv(ROOTS_VARIABLE, "")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    folder = tmp_path / "allowed"
    folder.mkdir()
    restrict([folder])
    return folder


def refused(path: Path) -> bool:
    try:
        check_below_roots(path)
    except UserError:
        return True
    return False


def test_without_roots_every_path_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOTS_VARIABLE, raising=False)
    assert roots() == ()
    assert check_below_roots(Path("/etc/hostname")) == Path("/etc/hostname")


def test_paths_below_a_root_are_read_and_others_are_refused(allowed: Path, tmp_path: Path) -> None:
    assert not refused(allowed)
    assert not refused(allowed / "images" / "a.png")
    assert not refused(tmp_path / "home" / "library")
    assert refused(tmp_path)
    assert refused(allowed / ".." / "other")
    assert refused(tmp_path / "allowed-too")
    assert refused(Path("/"))


def test_symbolic_links_count_as_what_they_point_at(allowed: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (allowed / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "in").symlink_to(allowed)
    assert refused(allowed / "out")
    assert refused(allowed / "out" / "a.png")
    assert not refused(tmp_path / "in" / "a.png")


def test_a_root_that_is_a_symbolic_link_allows_its_target(
    allowed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(allowed)
    restrict([tmp_path / "link"])
    assert not refused(allowed / "a.png")


def test_an_outside_path_is_refused_alike_whether_it_exists_or_not(allowed: Path, tmp_path: Path) -> None:
    (tmp_path / "exists").touch()
    messages = []
    for name in ("exists", "absent"):
        with pytest.raises(UserError) as error:
            check_below_roots(tmp_path / name)
        messages.append(str(error.value).replace(name, "NAME"))
    assert messages[0] == messages[1]


def test_the_demos_are_read_wherever_the_program_is_installed(allowed: Path) -> None:
    assert not refused(OWN_DATA / "demo" / "demo-noisy-tasks" / "tasks" / "train.parquet")
    assert refused(OWN_DATA.parent / "app.py")


def test_a_name_with_a_colon_does_not_allow_another_folder(allowed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        restrict([tmp_path / "home:backup"])
    assert not refused(allowed)
    assert refused(tmp_path)
