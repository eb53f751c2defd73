"""Nothing lost, everyone heard: two reviewers at once, servers that die, and logs that are locked."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from core.workspace.workspace import Workspace
from tests.e2e.review_pages import (
    another,
    decisions,
    eventually,
    grid,
    open_review,
    press,
    said,
    tile,
    verdict,
)
from tests.e2e.server import ROOT, Server, start_server

pytestmark = pytest.mark.slow


class Mortal:
    """A server that can be killed and comes back at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = self.start()

    def start(self, port: int = 0) -> Server:
        env = {"TASKLENS_HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1"}
        return start_server(ROOT / "app.py", self.folder, env, port=port)

    @property
    def url(self) -> str:
        return self.server.url

    def kill(self) -> None:
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()

    def restart(self) -> None:
        self.server = self.start(int(self.url.rpartition(":")[2]))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Mortal]:
    made = Mortal(folder)
    yield made
    made.server.stop()


def as_reviewer(page: Page, name: str) -> None:
    field = page.get_by_role("textbox", name="Reviewer")
    field.fill(name)
    field.press("Enter")
    expect(page.locator(".rv")).to_have_attribute("data-reviewer", name)
    tile(page, 0).click()


STORE = """([key, operation]) => localStorage.setItem("tasklens.review.ops/" + key,
    typeof operation === "string" ? operation : JSON.stringify(operation))"""
PENDING = "Object.keys(localStorage).filter((name) => name.startsWith('tasklens.review.ops')).length"


def test_pending_decisions_stay_those_of_their_reviewer(browser: Browser, server: Mortal, workspace: Workspace) -> None:
    image = workspace.runs.all("queue")[0].table("items.parquet")["image_id"]

    def kept(at: int, token: str) -> dict[str, object]:
        items = [["image", "", "", image[at], "keep", None]]
        return {"act": "decide", "verdict": "keep", "items": items, "token": token, "seq": at, "at": at}

    with another(browser) as (_, page):
        open_review(page, server.url, workspace)
        as_reviewer(page, "ann/2")
        server.kill()
        press(page, "k k")
        # As earlier versions stored them; the name of one reviewer begins that of the other.
        for reviewer, at in (("ann/2", 2), ("ann", 3), ("ann/2/3", 4)):
            page.evaluate(STORE, [f"{workspace.name}/{reviewer}/old-{at}", kept(at, f"old-{at}")])
        page.close(run_before_unload=False)
        server.restart()
        back = page.context.new_page()
        open_review(back, server.url, workspace)
        for reviewer in ("ann,", "ann/2,", "ann/2/3,"):  # the page begins with another one
            expect(grid(back).locator(".banner")).to_contain_text(f"of {reviewer}")
        as_reviewer(back, "ann")
        eventually(lambda: list(decisions(workspace)) == [3], 120)
        eventually(lambda: back.evaluate(PENDING) == 4)
        as_reviewer(back, "ann/2")
        eventually(lambda: len(decisions(workspace)) == 4, 120)
        eventually(lambda: back.evaluate(PENDING) == 1)
        reviewers = {at: entry.reviewer for at, entry in decisions(workspace).items()}
        assert reviewers == {0: "ann/2", 1: "ann/2", 2: "ann/2", 3: "ann"}


def test_operations_that_cannot_be_applied_are_reported_and_hold_up_no_others(
    browser: Browser, server: Mortal, workspace: Workspace
) -> None:
    image = workspace.runs.all("queue")[0].table("items.parquet")["image_id"]

    def operation(at: int, verdict: str, label: int | None = None, **more: object) -> dict[str, object]:
        items = [["image", "", "", image[at], verdict, label]]
        return {"act": "decide", "verdict": verdict, "label": label, "items": items, "at": at, "seq": at, **more}

    stored: list[object] = [
        operation(0, "keep"),
        operation(1, "eat"),
        operation(2, "relabel", 99),
        {**operation(3, "keep"), "items": "broken"},
        {"act": "comment", "text": "\ufeff", "items": [["image", "", "", image[4]]], "at": 4, "seq": 4},
        {"act": "decide", "at": 5, "seq": 5, "items": [["image", "", "", "gone", "keep", None]]},
        '{"act": "decide", "cut off',
        "7",
        operation(8, "remove", token=["no", "text"]),
    ]
    with another(browser) as (_, page):
        open_review(page, server.url, workspace)
        expect(page.locator(".rv")).to_have_attribute("data-reviewer", "me")
        for number, one in enumerate(stored):
            key = f"{workspace.name}/me/x-{number}" if number % 2 else f'["{workspace.name}","me","x-{number}"]'
            page.evaluate(STORE, [key, one])
        page.reload()
        expect(tile(page, 0)).to_be_visible()
        eventually(lambda: said(workspace) == {0: "keep", 8: "remove"})
        eventually(lambda: page.evaluate(PENDING) == 0)
        banner = grid(page).locator(".banner")
        expect(banner).to_contain_text("7 rejected operations")
        expect(banner).to_contain_text(f"image {image[1]}")
        assert not workspace.decisions.comments()
        tile(page, 10).click()
        press(page, "k")
        eventually(lambda: said(workspace) == {0: "keep", 8: "remove", 10: "keep"})
        expect(banner).to_be_visible()  # until it was read
        if folder := os.environ.get("TASKLENS_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/rejected.png")
        banner.get_by_role("button", name="Dismiss").click()
        expect(banner).to_be_hidden()


def test_two_reviewers_at_once(browser: Browser, server: Mortal, workspace: Workspace) -> None:
    with another(browser) as (_, ana), another(browser) as (_, ben):
        open_review(ana, server.url, workspace)
        open_review(ben, server.url, workspace)
        as_reviewer(ana, "Ana")
        as_reviewer(ben, "Ben")
        press(ana, "k")
        expect(verdict(ben, 0)).to_have_text("✓ keep")
        expect(tile(ben, 0)).to_have_attribute("aria-label", re.compile("decided: keep by Ana"))
        expect(grid(ben).locator(".others")).to_have_text("Ana decided 1 item in the last 5 minutes")

        # Both at the same item without having seen the other: shown as a conflict, and settled by whoever sees it.
        ben.locator("label", has_text="Blind").click()
        expect(grid(ben).locator(".summary")).to_contain_text("others' decisions are hidden")
        expect(verdict(ben, 0)).to_have_text("")
        tile(ben, 0).click()
        press(ben, "x")
        expect(verdict(ben, 0)).to_have_text("✕ remove")
        expect(tile(ana, 0).locator(".marks")).to_contain_text("⚡")
        tile(ana, 0).click()
        expect(ana.locator("aside")).to_contain_text("Reviewers disagree: Ana: keep; Ben: remove")
        press(ana, "x")
        expect(tile(ana, 0).locator(".marks")).to_have_text("")
        assert not workspace.decisions.conflicts()
        assert said(workspace) == {0: "remove"}


def test_a_locked_log_is_said_at_once_and_the_decision_is_saved_later(
    browser: Browser, server: Mortal, workspace: Workspace
) -> None:
    with another(browser) as (_, page):
        open_review(page, server.url, workspace)
        workspace.decisions.version()
        with closing(sqlite3.connect(workspace.folder / "decisions.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            press(page, "k x")
            expect(verdict(page, 1)).to_have_text("✕ remove")
            banner = grid(page).locator(".banner")
            expect(banner).to_contain_text("Not saved yet: 2 decisions kept in this browser")
            expect(banner).to_contain_text("in use by another program")
            assert not decisions(workspace)
            # The tiles show the newest of what is pending.
            press(page, "Home x")
            expect(verdict(page, 0)).to_have_text("✕ remove")
            press(page, "Home Backspace")
            expect(tile(page, 0)).to_have_attribute("aria-label", re.compile("undecided"))
            press(page, "z")
            expect(verdict(page, 0)).to_have_text("✕ remove")
            press(page, "z")
            expect(verdict(page, 0)).to_have_text("✓ keep")
            press(page, "shift+z")
            expect(verdict(page, 0)).to_have_text("✕ remove")
            press(page, "z")
            other.execute("ROLLBACK")
        eventually(lambda: said(workspace) == {0: "keep", 1: "remove"})
        expect(banner).to_be_hidden()


def test_a_server_killed_in_a_burst_loses_nothing(browser: Browser, server: Mortal, workspace: Workspace) -> None:
    with another(browser) as (_, page):
        open_review(page, server.url, workspace)
        killer = threading.Timer(0.15, server.kill)
        killer.start()
        for at in range(20):
            if at == 15:
                killer.join()  # the last five find no server
            page.keyboard.press("k")
            time.sleep(0.02)
        expect(verdict(page, 19)).to_have_text("✓ keep")
        expect(grid(page).locator(".banner")).to_contain_text("kept in this browser")
        press(page, " ".join(["x"] * 20))  # work goes on without a server
        server.restart()
        eventually(lambda: len(decisions(workspace)) == 40, 120)  # the browser tries again ever more rarely
        expect(grid(page).locator(".banner")).to_be_hidden()
        assert said(workspace) == {at: "keep" if at < 20 else "remove" for at in range(40)}
        assert len(workspace.decisions.history()) == 40  # nothing twice
        press(page, "z z")  # undo goes on across the restart
        eventually(lambda: len(decisions(workspace)) == 38)
        expect(verdict(page, 39)).to_have_text("")


def test_a_browser_killed_in_a_burst_sends_the_rest_when_it_is_back(
    browser: Browser, server: Mortal, workspace: Workspace
) -> None:
    with another(browser) as (context, page):
        open_review(page, server.url, workspace)
        server.kill()
        press(page, " ".join(["k"] * 10))
        page.close(run_before_unload=False)
        server.restart()
        assert not decisions(workspace)
        back = context.new_page()
        back.goto(f"{server.url}/review?workspace={workspace.name}")
        eventually(lambda: list(said(workspace)) == list(range(10)), 120)
        expect(verdict(back, 9)).to_have_text("✓ keep")
        press(back, "z")
        eventually(lambda: len(decisions(workspace)) == 9)
