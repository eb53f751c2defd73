"""The whole path in a real browser, on the demo or a small problem in its place: rank, look, remove, edit, curve,
export; and what must survive."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from core.tasks.generate import TaskSettings, generate, write_folder
from core.ui.edit.results import ESTIMATED_EFFECT, NET_EFFECT
from core.ui.shell.navigation import TITLES
from core.workspace.demos import DEMOS, open_demo
from core.workspace.workspace import create
from tests.cli.shell import Shell
from tests.e2e.widgets import fill

ROOT = Path(__file__).resolve().parents[2]
DEMO = "demo-noisy-tasks"
LONG = 480_000
"""Milliseconds that a background job on a busy machine may take; a limit, not an expectation."""


@pytest.fixture(params=[12, pytest.param(DEMOS[DEMO].tasks.count, marks=pytest.mark.slow)], ids=["small", "demo"])
def tasks(request: pytest.FixtureRequest) -> int:
    """How many training tasks the workspace has that opens by itself: few, or those of the demo."""
    return int(request.param)


@pytest.fixture
def home(tasks: int, tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    if tasks == DEMOS[DEMO].tasks.count:
        shutil.rmtree(open_demo(DEMO, folder).runs.folder)  # the path begins before anything is computed
    else:
        settings = TaskSettings(ways=3, shots=2, queries=3, count=tasks, heldout=6, noise="tasks:0.4:0.8")
        write_folder(generate(settings), tmp_path / "tasks")
        few = ["--filters", "2", "--iterations", "20", "--checks", "2", "--polish", "0", "--device", "cpu"]
        Shell(tmp_path).done("train", *few, "--tasks", tmp_path / "tasks", "--out", tmp_path / "model")
        create(folder / DEMO, tmp_path / "tasks", tmp_path / "model")
    return folder


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", name=text, exact=True)).to_be_visible()


def go(page: Page, name: str) -> None:
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()
    heading(page, name)


def picture_loaded(page: Page) -> None:
    """Wait for the picture of a dialog: closed before, it would be asked for when it is no longer there."""
    page.wait_for_function("[...document.querySelectorAll('[role=dialog] img')].some(one => one.naturalWidth > 0)")


@pytest.mark.timeout(1500)
def test_the_whole_path(page: Page, serve: Callable[..., str], home: Path, tasks: int) -> None:
    env = {"TASKLENS_HOME": str(home), "OMP_NUM_THREADS": "2"}
    page.goto(serve(ROOT / "app.py", env=env))
    heading(page, "Overview")
    expect(page.get_by_text("Accuracy on held-out tasks")).to_be_visible(timeout=LONG)

    # Rank on all held-out tasks, in the background, with a smaller sample of the curvature than usual, for time; the
    # page comes back by itself.
    page.get_by_text("Method settings", exact=True).click()
    fill(page, re.compile("^Tasks for the curvature"), str(min(16, tasks)))
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.get_by_text("Rank again, on other held-out tasks")).to_be_visible(timeout=LONG)

    # Tasks: the ranking, one task opened, the most harmful removed.
    go(page, "Tasks")
    expect(page.get_by_role("listbox", name="support images of the task")).to_be_visible()
    first = page.get_by_role("heading", name=re.compile("Task t")).inner_text()
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.get_by_role("heading", name=first, exact=True)).to_have_count(0)
    page.get_by_test_id("stBaseButton-primary").filter(has_text="Remove task").click()
    expect(page.get_by_text("Decided: 1 task removed")).to_be_visible()

    # Images: select by click and shift-click, remove, undo, remove again.
    go(page, "Images")
    tiles = page.get_by_role("listbox", name="Training images").get_by_role("option")
    expect(tiles.nth(5)).to_be_visible()
    harmful = [tiles.nth(i).get_attribute("data-id") for i in range(4)]
    tiles.nth(0).click()
    tiles.nth(3).click(modifiers=["Shift"])
    page.get_by_role("button", name="Remove 4 selected").click()
    expect(page.get_by_text("Decided: 1 task, 4 images removed")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Decided: 1 task removed", exact=True)).to_be_visible()
    page.get_by_role("button", name="Redo").click()
    expect(page.get_by_text("Decided: 1 task, 4 images removed")).to_be_visible()
    expect(tiles.nth(3)).to_have_class(re.compile("removed"))  # the grid is drawn anew, which would part the clicks
    tiles.nth(6).dblclick()
    expect(page.get_by_role("dialog").get_by_text("Adapted loss")).to_be_visible()
    picture_loaded(page)
    page.get_by_role("dialog").get_by_role("button", name="Close").click()

    # The removal survives a reload.
    page.reload()
    expect(page.get_by_text("Decided: 1 task, 4 images removed")).to_be_visible()

    # Edit: an estimate and measurements, in the background.
    go(page, "Edit")
    page.get_by_role("button", name="Estimate and fine-tune").click()
    expect(page.get_by_role("heading", name=NET_EFFECT)).to_be_visible(timeout=LONG)
    expect(page.get_by_text(ESTIMATED_EFFECT)).to_be_visible()

    # Curves: a long one cancelled; on the demo, a short one finished.
    go(page, "Curves")
    page.get_by_role("button", name="Measure", exact=True).click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text("was cancelled")).to_be_visible()
    if tasks == DEMOS[DEMO].tasks.count:
        for label, value in (("Seeds", "1"), ("Fine-tune steps", "1")):
            fill(page, label, value)
        expect(page.get_by_text("16 fine-tunes of 1 step")).to_be_visible()
        page.get_by_role("button", name="Measure", exact=True).click()
        expect(page.get_by_text("training tasks removed, %")).to_be_visible(timeout=LONG)

    # Export.
    go(page, "Export")
    page.get_by_role("button", name="Write the export").click()
    out = home / DEMO / "exports" / "cleaned"
    expect(page.get_by_text("cleaned-tasks.parquet").first).to_be_visible()
    cleaned = pd.read_parquet(out / "cleaned-tasks.parquet")
    assert cleaned["task_id"].nunique() == tasks - 1
    assert (cleaned.loc[cleaned["image_id"].isin(harmful), "weight"] == 0).all()
    removed = pd.read_csv(out / "removed.csv")
    assert set(removed["image_id"].dropna()) == set(harmful)

    # On the demo: the removal survives a restart of the server, whose first address is a deep link.
    if tasks == DEMOS[DEMO].tasks.count:
        page.goto("about:blank")
        page.goto(f"{serve(ROOT / 'app.py', env=env)}/images")
        expect(page.get_by_text("Decided: 1 task, 4 images removed")).to_be_visible()


def test_the_first_minute_of_the_demo(page: Page, serve: Callable[..., str], tmp_path: Path) -> None:
    """What came with the demo is shown at once: what to remove, and what removing it does."""
    page.goto(serve(ROOT / "app.py", env={"TASKLENS_HOME": str(tmp_path)}))
    heading(page, "Overview")
    expect(page.get_by_text("Accuracy on held-out tasks")).to_be_visible()
    expect(page.get_by_text("Recommended here").first).to_be_visible()
    expect(page.get_by_text("Precomputed")).to_be_visible()
    go(page, "Tasks")
    page.get_by_role("button", name=re.compile(r"^Remove \d+ tasks$")).click()
    expect(page.get_by_text(re.compile(r"^Decided: \d+ tasks removed$"))).to_be_visible()
    go(page, "Edit")
    expect(page.get_by_role("heading", name=NET_EFFECT)).to_be_visible()
    page.get_by_text(re.compile(r"^Precomputed: \d+ results")).click()
    expect(page.get_by_role("button", name="Run again").first).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("name", TITLES)
@pytest.mark.timeout(300)
def test_cold_deep_link(page: Page, serve: Callable[..., str], tmp_path: Path, name: str) -> None:
    """On a fresh server the first address asked for is a page's; navigation and page are there."""
    url = serve(ROOT / "app.py", env={"TASKLENS_HOME": str(tmp_path)})
    page.goto(f"{url}/{name}")
    heading(page, TITLES[name])
    expect(page.get_by_test_id("stSidebarNav").get_by_role("link")).to_have_count(len(TITLES))
