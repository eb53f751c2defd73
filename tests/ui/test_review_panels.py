"""The panels of the Review page, and deciding in the sight of others, without a browser."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from core.actions.queue import QueueSettings
from core.decisions.log import Decision, DecisionLog, Item
from core.ui.review.queue_panel import (
    COMPUTING,
    MEASURED_ON,
    NOT_CALIBRATED,
    SLOW_SCORES,
    UNKNOWN_DURATION,
    queue_args,
    time_words,
)
from core.ui.review.snapshots_panel import SAVE
from core.workspace.workspace import Workspace
from tests.ui.conftest import Open, click, run_again, words
from tests.ui.queue_fixture import write_queue
from tests.ui.test_reruns import counted

__all__ = ["counted"]


def opened(show: Open, panel: str) -> AppTest:
    page = show("review")
    page.session_state[f"review_open_{panel}"] = True
    return run_again(page)


def computed(page: AppTest) -> AppTest:
    """The page once the forecast is there."""
    for _ in range(100):
        if COMPUTING not in words(page):
            return page
        time.sleep(0.05)
        run_again(page)
    raise AssertionError("no forecast")


def image(workspace: Workspace, at: int = 0) -> Item:
    return Item("image", image_id=sorted(workspace.project().tasks.train.rows["image_id"])[at])


def test_a_forecast_for_the_first_n(show: Open, empty: Workspace) -> None:
    run = write_queue(empty, planted=True)
    page = computed(opened(show, "forecast"))
    page.number_input(key=f"review_forecast_depth_{run.id}").set_value(len(run.table("items.parquet")))
    assert "**0** [0, 0] remaining" in words(run_again(page))


def test_a_queue_that_is_not_calibrated_says_so(show: Open, empty: Workspace) -> None:
    write_queue(empty)
    assert NOT_CALIBRATED in words(opened(show, "forecast"))
    assert NOT_CALIBRATED in words(opened(show, "queue"))


def test_how_it_was_made_and_another(show: Open, empty: Workspace, started: list[list[str]]) -> None:
    write_queue(empty, planted=True)
    page = opened(show, "queue")
    assert "Ranked by **Loss after adaptation**" in words(page)
    assert MEASURED_ON in words(page)
    page.multiselect(key="review_slow").set_value(["harm"])
    page.checkbox(key="review_calibrate").set_value(False)
    run_again(page)
    click(page, "review_make_again")
    folder = ["--workspace", str(empty.folder)]
    assert started == [["review", "queue", *folder, "--slow", "harm", "--no-calibrate"]]


@pytest.mark.parametrize(("seed", "is_offered"), [(0, False), (1, True)])
def test_a_queue_with_the_same_settings_is_not_built_again(
    seed: int, is_offered: bool, show: Open, empty: Workspace
) -> None:
    write_queue(empty, seed=seed, planted=True)
    page = opened(show, "queue")
    assert [button.key for button in page.button if button.key == "review_make_again"] == (
        ["review_make_again"] if is_offered else []
    )


def test_arguments_and_time() -> None:
    assert queue_args(QueueSettings()) == ["review", "queue"]
    assert queue_args(QueueSettings(rounds=2)) == ["review", "queue", "--rounds", "2"]
    assert "took 24 s with injected errors. It" in time_words(24, QueueSettings(), True)
    assert SLOW_SCORES in time_words(24, QueueSettings(("harm",)), True)
    assert time_words(0, QueueSettings(), True) == UNKNOWN_DURATION


def test_a_rerun_with_open_panels_computes_nothing_again(show: Open, empty: Workspace, counted: Any) -> None:
    write_queue(empty, planted=True)
    empty.decisions.append([Decision(image(empty), "keep", reviewer="Ann")])
    empty.decisions.snapshot("one", "Ann")
    empty.decisions.append([Decision(image(empty), "remove", reviewer="Bob")])
    page = show("review")
    for panel in ("forecast", "queue", "snapshots"):
        page.session_state[f"review_open_{panel}"] = True
    computed(run_again(page))
    counted.clear()
    run_again(page)
    assert not counted


def test_snapshots_are_saved_compared_and_restored(show: Open, empty: Workspace) -> None:
    write_queue(empty)
    item = image(empty)
    empty.decisions.append([Decision(item, "keep", reviewer="Ann")])
    page = opened(show, "snapshots")
    page.text_input(key="review_snapshot_name").set_value("before ![](http://evil.example/x.png)")
    page.text_input(key="review_snapshot_note").set_value("all of it")
    next(one for one in page.button if one.label == SAVE).click()
    run_again(page)
    (saved,) = empty.decisions.snapshots()
    assert (saved.reviewer, saved.note) == ("me", "all of it")
    empty.decisions.append([Decision(item, "remove", reviewer="Ann")])
    run_again(page)
    assert [row.tolist() for row in page.dataframe[1].value.to_numpy()] == [
        [f"image {item.image_id}", "keep", "remove (label error)"]
    ]
    assert page.button(key="review_restore").disabled
    next(one for one in page.checkbox if str(one.key).startswith("review_restore_sure")).check()
    run_again(page)
    click(page, "review_restore")
    assert empty.decisions.current()[item].verdict == "keep"
    empty.decisions.undo("me")
    assert empty.decisions.current()[item].verdict == "remove"


def test_conflicts_agreement_and_comments(show: Open, empty: Workspace) -> None:
    write_queue(empty)
    for name, verdicts in (("Ann", ("keep", "keep")), ("Bob", ("keep", "remove"))):
        log = empty.decisions
        log.append([Decision(image(empty, at), said, reviewer=name) for at, said in enumerate(verdicts)])  # type: ignore[arg-type]
    empty.decisions.comment(image(empty, 1), "Bob", "half a seven")
    page = opened(show, "snapshots")
    said = [cell for table in page.dataframe for cell in np.ravel(table.value.to_numpy()).tolist()]
    assert "Ann: keep; Bob: remove (label error)" in said
    assert "half a seven" in said
    assert "2 items decided by both for the same cause, **50%**" in words(page)
    page.toggle(key="review_blind").set_value(True)
    run_again(page)
    assert "decided by both" not in words(page)
    assert not page.dataframe


def test_deciding_in_the_sight_of_others_is_no_conflict(show: Open, full: Workspace) -> None:
    other = Workspace(full.folder).decisions
    page = show("tasks")
    task = Item("task", task_id=full.runs.all("rank")[0].table("tasks.parquet").sort_values("score")["task_id"].iloc[0])
    other.append([Decision(task, "keep", reviewer="Ann")])
    page.button(key="tasks_remove").click()
    run_again(page)  # Ann's decision was not on the screen
    assert task in other.conflicts()
    page.button(key="tasks_remove").click()
    run_again(page)
    assert task not in other.conflicts()


def test_clearing_records_what_was_seen(show: Open, full: Workspace) -> None:
    page = show("edit")
    version = full.decisions.version()
    click(page, "edit_clear_all")
    assert full.decisions.history()[-1].saw == version


def test_a_task_is_relabelled_as_suggested(show: Open, full: Workspace) -> None:
    page = show("tasks")
    assert not [one for one in page.button if one.key == "tasks_relabel"]
    queue = write_queue(full)
    shown = full.runs.all("rank")[0].table("tasks.parquet").sort_values("score")["task_id"].iloc[0]
    rows = full.project().tasks.train.select([shown]).rows
    found = queue.table("items.parquet").set_index("image_id")
    suggested = found.loc[rows["image_id"]]
    wrong = int((suggested["suggested"].to_numpy() != rows["class"].to_numpy()).sum())
    run_again(page)
    page.number_input(key="tasks_least_probability").set_value(0.0)
    run_again(page)
    button = page.button(key="tasks_relabel")
    assert button.disabled == (wrong == 0)
    if wrong:
        before = len(full.decisions.history())
        click(page, "tasks_relabel")
        made = full.decisions.history()[before:]
        assert {(one.verdict, one.item.kind, one.item.task_id) for one in made} == {("relabel", "instance", shown)}
        assert len(made) == wrong
        assert page.button(key="tasks_relabel").disabled


def test_pages_wait_for_a_locked_log_not_long(show: Open, full: Workspace, monkeypatch: Any) -> None:
    import core.ui.shell.context

    waits: list[float] = []

    class Watched(DecisionLog):
        def __init__(self, path: Any, busy_seconds: float = 10.0) -> None:
            waits.append(busy_seconds)
            super().__init__(path, busy_seconds)

    monkeypatch.setattr(core.ui.shell.context, "DecisionLog", Watched)
    show("tasks")
    assert waits
    assert max(waits) < 2
