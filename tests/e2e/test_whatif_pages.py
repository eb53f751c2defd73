"""Why and What if in a real browser: from a failing task to a removal, a named set, its estimate and a measurement."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from core.actions.compute import Compute
from core.actions.evaluate import evaluation
from core.actions.preparation import prepare
from core.checkpoints.model import Model, ModelSpec, save_model
from core.runtime.progress import Progress
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.workspace import Workspace, create
from tests.e2e.widgets import fill, press, settled


@pytest.fixture
def workspace(folder: Path, tmp_path: Path) -> Workspace:
    """A small one, prepared and evaluated."""
    tasks = generate(TaskSettings(ways=3, shots=1, queries=2, count=6, heldout=4))
    write_folder(tasks, tmp_path / "tasks")
    spec = ModelSpec(ways=3, filters=2)
    save_model(Model(spec, spec.init(0, torch.float64), {}), tmp_path / "model")
    workspace = Workspace(create(folder / "home" / "tiny", tmp_path / "tasks", tmp_path / "model").folder)
    prepare(workspace, Compute("cpu"), Progress())
    evaluation(workspace, Compute("cpu"), Progress())
    return workspace


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_from_a_failure_to_a_measured_set(page: Page, app: str, workspace: Workspace) -> None:
    page.goto(f"{app}/why?workspace=tiny")  # a cold deep link
    expect(page.get_by_role("heading", name="If the worst images were removed")).to_be_visible()
    settled(page)
    before = page.url
    press(page, "Next")
    page.wait_for_url(lambda url: url != before)
    settled(page)  # the tiles of the target before are gone, and what was selected of them
    tiles = page.get_by_role("listbox", name="most harmful training images").get_by_role("option")
    tiles.first.click()
    chosen = tiles.first.get_attribute("data-id")
    page.get_by_role("button", name="Remove 1 selected").click()
    expect(page.get_by_text("Decided: 1 image removed")).to_be_visible()
    assert workspace.changes().images == {chosen}

    page.get_by_test_id("stSidebarNav").get_by_role("link", name="What if", exact=True).click()
    expect(page.get_by_text("There are no sets yet")).to_be_visible()
    fill(page, re.compile("^Name of the set"), "mine")
    fill(page, re.compile("^Note"), "![](http://evil.example/x.png)")
    page.get_by_role("button", name="Save current decisions").click()
    expect(page.get_by_text("mine · estimate")).to_be_visible()
    expect(page.get_by_text("only retraining measures it")).to_be_visible()
    page.get_by_role("button", name="Fine-tune (background)").click()
    expect(page.get_by_text("mine · fine-tuned")).to_be_visible(timeout=120_000)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("There are no sets yet")).to_be_visible()
