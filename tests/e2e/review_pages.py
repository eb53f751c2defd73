"""What the browser tests of the Review page share: a tiny workspace with a queue, and ways about the page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from core.checkpoints.model import Model, ModelSpec, save_model
from core.decisions.log import DecisionLog, Entry
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.workspace import Workspace, create
from tests.ui.queue_fixture import write_queue

LIMIT = 90_000
"""Milliseconds that anything but a background job may take on a busy machine; a limit, not an expectation."""
ITEMS = 200
UNLIKELY, LIKELY = 5, 6
"""Positions of two items with another class suggested, which is less or more likely than the given one."""


def make_workspace(folder: Path, name: str, *, items: int = ITEMS) -> Workspace:
    """A workspace of MNIST tasks and an untrained model, with a queue of ``items`` images."""
    made = folder / "made"
    if not made.exists():
        tasks = generate(TaskSettings(ways=3, shots=1, queries=2, count=40, heldout=2))
        write_folder(tasks, folder / "tasks")
        spec = ModelSpec(ways=3, filters=2)
        told = {"iterations": 2, "meta_batch": 2, "learning_rate": 1e-3, "polish": 0, "tolerance": 1e-4, "seed": 0}
        save_model(Model(spec, spec.init(0, torch.float64), {"training": told}), folder / "model")
        run = write_queue(create(made, folder / "tasks", folder / "model"), most=items)
        table, two = run.table("items.parquet"), [UNLIKELY, LIKELY]
        table.loc[two, "suggested"] = np.where(table.loc[two, "class"] == "0", "1", "0")
        table.loc[two, "suggested_probability"] = [0.001, 0.999]
        table.to_parquet(run.folder / "items.parquet")
    shutil.copytree(made, folder / "home" / name)
    return Workspace(folder / "home" / name)


def open_review(page: Page, url: str, workspace: Workspace, more: str = "") -> Page:
    page.goto(f"{url}/review?workspace={workspace.name}{more}")
    expect(tiles(page).first).to_be_visible()
    expect(tiles(page).first).to_be_focused()
    return page


def tiles(page: Page) -> Locator:
    return grid(page).get_by_role("listbox", name="Review queue").get_by_role("option")


def grid(page: Page) -> Locator:
    return page.locator(".rv")


def tile(page: Page, position: int) -> Locator:
    """The tile at that position of the queue (from 0)."""
    return grid(page).locator(f".tile[data-p='{position}']")


def verdict(page: Page, position: int) -> Locator:
    return tile(page, position).locator(".verdict")


def press(page: Page, keys: str) -> None:
    """Press keys one after another: ``k x shift+z``, in the words of the key sheet."""
    names = {"space": "Space", "pagedown": "PageDown", "pageup": "PageUp", "right": "ArrowRight", "left": "ArrowLeft"}
    for key in keys.split():
        page.keyboard.press(names.get(key, key.replace("shift+z", "Shift+Z").replace("ctrl+", "Control+")))


def decisions(workspace: Workspace) -> dict[int, Entry]:
    """What the log says, by position in the queue."""
    table = workspace.runs.all("queue")[0].table("items.parquet")
    position = dict(zip(table["image_id"], table["rank"], strict=True))
    current = DecisionLog(workspace.folder / "decisions.sqlite").current()
    return {position[item.image_id]: entry for item, entry in current.items()}


def said(workspace: Workspace) -> dict[int, str]:
    return {at: entry.verdict for at, entry in sorted(decisions(workspace).items())}


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


@contextmanager
def another(browser: Browser) -> Iterator[tuple[BrowserContext, Page]]:
    """Another browser profile, whose console may complain, as of a server that died."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(LIMIT)
    yield context, context.new_page()
    context.close()
