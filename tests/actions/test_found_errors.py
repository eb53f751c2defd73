"""Command line, report and Review page give one number of items decided and found wrong."""

from __future__ import annotations

import re
from pathlib import Path

from core.actions.decide import mark
from core.actions.export_decisions import provenance
from core.actions.report import report_html
from core.decisions.causes import CAUSE_WORDS, CAUSES
from core.decisions.log import Decision
from core.review.review_queue import Queue
from core.review.review_state import read_state
from core.ui.review.forecast import forecast_now
from tests.actions.reviewed import small_workspace, some_items
from tests.cli.shell import Shell
from tests.ui.queue_fixture import write_queue


def test_command_line_report_and_page_agree_on_an_image_removal_and_a_conflict(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    run = write_queue(workspace, level="instance", planted=True)
    items = run.table("items.parquet")
    image = items["image_id"].value_counts().index[0]
    removed = int((items["image_id"] == image).sum())
    row = items[items["image_id"] != image].iloc[0]
    mark(workspace, images=[image], reviewer="ann")
    for reviewer, verdict in (("ann", "keep"), ("bob", "remove")):
        where = (row["task_id"], row["role"], row["image_id"])
        mark(workspace, instances=[where], verdict=verdict, reviewer=reviewer)  # type: ignore[arg-type]
    assert len(workspace.decisions.conflicts()) == 1

    printed = Shell(tmp_path).done("review", "show", "-w", str(workspace.folder), "--top", "0").out
    by_command_line = re.search(r"([\d,]+) of [\d,]+ items decided, ([\d,]+) label errors? found", " ".join(printed))
    html = " ".join(report_html(workspace).split())
    by_report = re.search(r"([\d,]+) label errors? found", html)
    figures = {label: int(number) for number, label in re.findall(r"<b>(\d+)</b><span>([^<]*)</span>", html)}
    queue = Queue.of_table(run.folder, items, workspace.project().images.class_names)
    state = read_state(workspace.decisions, queue, None)
    assert by_command_line is not None
    assert by_report is not None
    assert int(by_command_line[1]) == int(by_command_line[2]) == removed
    assert int(by_report[1]) == removed
    assert figures["items decided"] == figures["label errors (removed or relabelled)"] == state.decided == removed
    assert (figures["labels kept"], figures["in conflict"]) == (0, 1)
    assert forecast_now(queue, state).decisions.errors_found == removed
    assert sum(entry.verdict == "remove" for entry in state.entries.values()) == removed + 1
    assert set(state.conflicts) == {int(row["rank"])}


def test_decisions_that_no_item_of_the_queue_takes_are_counted_apart(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    write_queue(workspace, level="image")
    items = some_items(workspace)
    chosen = items["image"][0], items["instance"][3], items["task"][0]
    workspace.decisions.append([Decision(item, "remove", reviewer="ann") for item in chosen])
    for reviewer, verdict in (("ann", "keep"), ("bob", "remove")):
        workspace.decisions.append([Decision(items["instance"][4], verdict, reviewer=reviewer)])  # type: ignore[arg-type]
    workspace.decisions.append([Decision(items["instance"][5], "unsure", reviewer="ann")])
    html = " ".join(report_html(workspace).split())
    figures = {label: int(number) for number, label in re.findall(r"<b>(\d+)</b><span>([^<]*)</span>", html)}
    assert [figures[label] for label in ("items decided", "labels decided outside the queue", "tasks removed")] == [
        1,
        1,
        1,
    ]
    assert [figures[f"{what} outside the queue"] for what in ("unsure", "in conflict")] == [1, 1]


def test_removals_for_other_causes_are_no_label_errors_and_are_counted_apart(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    run = write_queue(workspace, level="image", planted=True)
    images = some_items(workspace)["image"]
    for cause, item in zip(CAUSES, images, strict=False):
        mark(workspace, [item], cause=cause, reviewer="ann")
    mark(workspace, images[4:7], reviewer="ann", source="rank-1")
    mark(workspace, images[7:8], verdict="keep", cause="duplicate", reviewer="ann")

    printed = " ".join(Shell(tmp_path).done("review", "show", "-w", str(workspace.folder), "--top", "0").out)
    assert re.search(r"\b8 of [\d,]+ items decided, 1 label error found", printed)
    assert all(f"{CAUSE_WORDS[cause]}: {n}" in printed for cause, n in {"harmful": 4, "duplicate": 1}.items())
    html = " ".join(report_html(workspace).split())
    figures = {label: int(number) for number, label in re.findall(r"<b>(\d+)</b><span>([^<]*)</span>", html)}
    counted = ("items decided", "label errors (removed or relabelled)", "labels kept")
    assert [figures[label] for label in counted] == [8, 1, 0]
    sections = dict(re.findall(r"<h2>Removed: ([a-z ]+) \((\d)\)</h2>", html))
    assert sections == {CAUSE_WORDS[cause]: str(4 if cause == "harmful" else 1) for cause in CAUSES}
    queue = Queue.of_table(run.folder, run.table("items.parquet"), workspace.project().images.class_names)
    state = read_state(workspace.decisions, queue, None)
    assert (forecast_now(queue, state).decisions.errors_found, list(state.is_wrong.values())) == (1, [True])
    assert state.decided == 8, "nobody needs to look at the others again"
    assert provenance(workspace)["removals"] == {"label-error": 1, "harmful": 4, "duplicate": 1, "other": 1}
