"""Errors and names from users in a real browser: the Review grid while its log is locked, and names that are markup."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.review.filters import Filters
from core.review.saved_views import save_view
from core.workspace.workspace import Workspace
from tests.e2e.conftest import Serve
from tests.e2e.names import NAME
from tests.e2e.review_pages import open_review, press, tile, tiles, verdict

HERE = Path(__file__).resolve().parent


@contextmanager
def locked(log: Path) -> Iterator[None]:
    """Another program that holds the log for itself, readers included."""
    with closing(sqlite3.connect(log, isolation_level=None, timeout=30)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture
def url(app: str) -> str:
    return app


def test_a_locked_log_is_reported_once_and_the_grid_stays(review: Page, workspace: Workspace) -> None:
    press(review, "x")
    expect(verdict(review, 0)).to_contain_text("remove")
    with locked(workspace.folder / "decisions.sqlite"):
        box = review.get_by_text("is in use by another program")
        expect(box).to_have_count(1)
        review.wait_for_timeout(3000)  # several polls
        expect(box).to_have_count(1)
        expect(tile(review, 1)).to_be_visible()
    expect(box).to_have_count(0)
    press(review, "k")
    expect(verdict(review, 1)).to_contain_text("keep")


def test_a_log_that_is_locked_when_the_page_opens_comes_back(page: Page, url: str, workspace: Workspace) -> None:
    log = workspace.folder / "decisions.sqlite"
    _ = workspace.decisions
    with locked(log):
        page.goto(f"{url}/review?workspace={workspace.name}")
        expect(page.get_by_text("is in use by another program")).to_have_count(1)
        expect(page.get_by_role("button", name="Reapply filters")).to_be_visible()
    expect(tiles(page).first).to_be_visible()
    expect(page.get_by_text("is in use by another program")).to_have_count(0)


def test_a_name_is_shown_as_it_is(page: Page, serve: Serve) -> None:
    page.goto(serve(HERE / "apps" / "names.py"))
    for test_id in ("stMarkdown", "stHeading", "stCaptionContainer", "stAlert", "stButton", "stExpander", "stMetric"):
        expect(page.get_by_test_id(test_id).get_by_text(NAME, exact=True).first).to_be_visible()
    for test_id in ("stProgress", "stTabs", "stCheckbox", "stToast"):
        expect(page.get_by_test_id(test_id).get_by_text(NAME, exact=True).first).to_be_visible()
    page.get_by_test_id("stButton").locator("button").first.hover()
    expect(page.get_by_test_id("stTooltipContent").get_by_text(NAME, exact=True)).to_be_visible()
    expect(page.locator(".js-plotly-plot").get_by_text(NAME, exact=True).first).to_be_visible()
    expect(page.locator("a:visible:not([href^='#'])")).to_have_count(0)
    expect(page.locator(".js-plotly-plot a")).to_have_count(0)


def test_a_view_with_such_a_name_is_no_link(page: Page, url: str, workspace: Workspace) -> None:
    save_view(workspace.folder, NAME[:50], Filters())
    open_review(page, url, workspace)
    page.get_by_role("button", name="Saved views").click()
    expect(page.get_by_role("button", name=NAME[:50], exact=True)).to_be_visible()
    expect(page.get_by_test_id("stPopoverBody").locator("a")).to_have_count(0)
