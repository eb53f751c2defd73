"""A rerun that changes nothing computes nothing again, and what others change is seen by the next one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

import core.actions.rank
import core.decisions.queries
import core.runtime.files
import core.ui.experiments.read
import core.ui.export.results
import core.ui.grid.component
import core.ui.trust.evidence_panel
import core.ui.trust.evidence_results
import core.workspace.workspace
from core.decisions.log import Decision, Item
from core.ui.shell.navigation import TITLES
from core.ui.trust.evidence_panel import TIMING
from core.workspace.workspace import Workspace
from tests.ui.conftest import Open, run_again, words
from tests.ui.evidence import write_evidence
from tests.ui.experiment_fixture import write_experiment

COSTLY: dict[str, tuple[Any, str]] = {
    "a parquet file read": (pd, "read_parquet"),
    "a problem loaded": (core.workspace.workspace, "read_folder"),
    "a model loaded": (core.workspace.workspace, "load_model"),
    "a run's or job's JSON read": (core.runtime.files, "read_json"),
    "a decision read": (core.decisions.queries, "entries"),
    "an atlas encoded": (core.ui.grid.component, "jpeg_atlas"),
    "a ranking compared with injected noise": (core.actions.rank, "detection"),
    "a table pivoted": (core.ui.trust.evidence_results, "grids"),
    "a bootstrap": (core.ui.trust.evidence_results, "lds_difference"),
    "a cost tried": (core.ui.trust.evidence_panel, "predicted_seconds"),
    "a task list cleaned": (core.ui.export.results, "cleaned"),
    "an experiment's result read": (core.ui.experiments.read, "read_result"),
    "a group-by": (pd.DataFrame, "groupby"),
    "a pivot": (pd.DataFrame, "pivot_table"),
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each costly function was called."""
    calls: Counter[str] = Counter()

    def counting(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls[what] += 1
            return real(*args, **options)

        return call

    for what, (place, name) in COSTLY.items():
        monkeypatch.setattr(place, name, counting(what, getattr(place, name)))
    return calls


@pytest.mark.parametrize("name", TITLES)
def test_nothing_is_computed_again(name: str, show: Open, full: Workspace, counted: Counter[str]) -> None:
    write_evidence(full)
    write_experiment()
    page = show(name)
    while TIMING in words(page):
        run_again(page)
    run_again(page)
    counted.clear()
    run_again(page)
    assert not counted


def test_a_decision_reads_no_problem_again(show: Open, full: Workspace, counted: Counter[str]) -> None:
    page = show("tasks")
    counted.clear()
    page.button(key="tasks_remove").click()
    run_again(page)
    assert counted["a problem loaded"] == counted["a parquet file read"] == 0


def test_what_others_decide_is_seen_by_the_next_rerun(show: Open, full: Workspace) -> None:
    page = show("images")
    image = full.runs.all("rank")[0].table("images.parquet")["image_id"].iloc[0]
    Workspace(full.folder).decisions.append([Decision(Item("image", image_id=image), "remove", reviewer="another")])
    assert "Decided: 1 task, 1 image removed" in words(run_again(page))
    Workspace(full.folder).decisions.undo("another")
    assert "Decided: 1 task removed" in words(run_again(page))
    assert "1 image" not in words(page)


def test_another_log_in_the_place_of_the_first_is_seen(show: Open, full: Workspace) -> None:
    page = show("images")
    for path in full.folder.glob("decisions.sqlite*"):
        path.unlink()
    assert "nothing yet" in words(run_again(page))


def test_another_model_in_the_place_of_the_first_is_seen(show: Open, full: Workspace, counted: Counter[str]) -> None:
    page = show("overview")
    path = full.folder / "model" / "model.json"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    counted.clear()
    run_again(page)
    assert counted["a model loaded"] == 1
