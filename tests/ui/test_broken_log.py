"""Pages on a workspace whose decision log cannot be read: each opens, reports it once, and shows what needs no log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.decisions.log import DecisionLog
from core.runtime.errors import UserError
from core.ui.shell.navigation import TITLES
from core.workspace.workspace import Workspace
from tests.ui.conftest import Open, run_again, words
from tests.ui.queue_fixture import write_queue

Break = Callable[[Path], object]


def _remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def damaged(path: Path) -> None:
    _remove(path)
    path.write_bytes(bytes((37 * i + 11) % 256 for i in range(20_000)))


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def unreadable(path: Path) -> None:
    """A folder in its place, as root may read every file."""
    _remove(path)
    path.mkdir()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As by another process that holds the file for itself, readers included."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        yield


def has_button(key: str) -> Callable[[AppTest], bool]:
    return lambda page: any(button.key == key for button in page.button)


WORKS: dict[str, Callable[[AppTest], bool]] = {
    "overview": lambda page: len(page.metric) == 4,
    "load": lambda page: bool(page.subheader),
    "review": has_button("review_all"),
    "tasks": lambda page: "Rank 1 of" in words(page) and len(page.dataframe) == 1,
    "images": lambda page: "images. Click" in words(page),
    "why": lambda page: page.selectbox(key="why_target").value is not None,
    "trust": has_button("trust_start"),
    "edit": lambda page: page.selectbox(key="ranking").value is not None and len(page.subheader) == 3,
    "sets": lambda page: bool(page.text_input(key="sets_name")),
    "curves": lambda page: page.selectbox(key="curve_run").value is not None,
    "experiments": lambda page: bool(page.selectbox) or bool(page.radio) or bool(page.button),
    "export": lambda page: bool(page.title),  # nothing of it can do without decisions
}
"""Something of each page that needs no decisions."""
WITHOUT_LOG = {"load", "trust", "curves", "experiments"}
"""Pages that never open it."""


def sentence(log: Path) -> str:
    with pytest.raises(UserError) as error:
        DecisionLog(log, 0.01).current()
    return error.value.what


def check(page: AppTest, name: str, what: str) -> None:
    assert words(page).count(what) == (name not in WITHOUT_LOG)
    assert page.title[0].value == TITLES[name]
    assert WORKS[name](page)


@pytest.mark.parametrize(
    "fault",
    [damaged, *(pytest.param(fault, marks=pytest.mark.slow) for fault in (newer, unreadable))],
    ids=lambda fault: fault.__name__,
)
@pytest.mark.parametrize("name", TITLES)
def test_each_page_says_what_is_wrong_once(name: str, fault: Break, show: Open, full: Workspace) -> None:
    write_queue(full)
    log = full.folder / "decisions.sqlite"
    fault(log)
    check(show(name), name, sentence(log))


@pytest.mark.parametrize(
    "name", [name if name == "review" else pytest.param(name, marks=pytest.mark.slow) for name in TITLES]
)
def test_what_a_locked_log_hides_comes_back(
    name: str, show: Open, full: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_queue(full)
    log = full.folder / "decisions.sqlite"
    monkeypatch.setattr("core.ui.shell.context._BUSY_SECONDS", 0.01)
    with locked(log):
        what = sentence(log)
        page = show(name)
        check(page, name, what)
    assert what not in words(run_again(page))
