"""The review grid where Streamlit draws it in another place, as when something appears above it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.decisions.log import DecisionLog
from core.workspace.workspace import Workspace
from tests.e2e.review_pages import ITEMS, decisions, eventually, press, said, tile

pytestmark = pytest.mark.slow
APP = "tests/e2e/apps/moving_review_app.py"


class Moves:
    """Makes the grid go to another place, and back."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page, self.file = page, file

    def __call__(self) -> None:
        there = self.file.exists()
        host = self.page.locator(".rv").evaluate_handle("box => box.getRootNode().host")
        self.file.unlink() if there else self.file.touch()
        expect(self.page.get_by_text("A line above")).to_have_count(0 if there else 1)
        self.page.wait_for_function("host => !host.isConnected", arg=host)  # it was drawn anew
        expect(self.page.locator(".rv .tile").first).to_be_attached()


@pytest.fixture(scope="module")
def url(serve: Callable[..., str], folder: Path) -> str:
    return serve(APP, env={"TASKLENS_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "MOVE": str(folder / "move")})


@pytest.fixture
def move(review: Page, folder: Path) -> Moves:
    return Moves(review, folder / "move")


def test_focus_and_selection_come_along(review: Page, move: Moves, workspace: Workspace) -> None:
    press(review, "k x right right s right s")
    expect(tile(review, 5)).to_be_focused()
    move()
    expect(review.locator(".rv")).to_have_count(1)
    expect(tile(review, 5)).to_be_focused()
    expect(review.locator(".rv .tile[aria-selected=true]")).to_have_count(2)
    press(review, "u")
    eventually(lambda: said(workspace) == {0: "keep", 1: "remove", 4: "unsure", 5: "unsure"})
    press(review, "z")
    eventually(lambda: said(workspace) == {0: "keep", 1: "remove"})


def test_the_large_view_stays_open(review: Page, move: Moves, workspace: Workspace) -> None:
    press(review, "space")
    large = review.get_by_role("dialog", name="Large view")
    press(review, "k")
    expect(large.locator(".place")).to_have_text(f"2 of {ITEMS}")
    move()
    expect(large.locator(".place")).to_have_text(f"2 of {ITEMS}")
    press(review, "x")
    expect(large.locator(".place")).to_have_text(f"3 of {ITEMS}")
    move()
    press(review, "space")
    expect(large).to_have_count(0)
    expect(tile(review, 2)).to_be_focused()
    eventually(lambda: said(workspace) == {0: "keep", 1: "remove"})


def test_a_comment_half_written_stays(review: Page, move: Moves, workspace: Workspace) -> None:
    press(review, "right m")
    review.keyboard.type("Half a seven, ")
    move()
    review.keyboard.type("rk")
    review.keyboard.press("Enter")
    log = DecisionLog(workspace.folder / "decisions.sqlite")
    eventually(lambda: [one.text for one in log.comments()] == ["Half a seven, rk"])
    expect(tile(review, 1)).to_be_focused()
    assert not decisions(workspace)


def test_no_key_is_lost_on_the_way(review: Page, folder: Path, workspace: Workspace) -> None:
    file = folder / "move"
    for at in range(60):
        if at % 20 == 5:
            file.unlink() if file.exists() else file.touch()
        press(review, "x" if at % 2 else "k")
        review.wait_for_timeout(40)
    eventually(lambda: said(workspace) == {at: "remove" if at % 2 else "keep" for at in range(60)})
    expect(tile(review, 60)).to_be_focused()
    expect(review.locator(".rv")).to_have_count(1)
