"""Write the review as one HTML file without scripts or external requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from core.actions.duplicates import newest_duplicates, summary_text
from core.actions.edit_results import edit_results, procedure_finding
from core.actions.export_decisions import decision_table, provenance
from core.actions.queue import decisions_on, newest_queue
from core.decisions.causes import CAUSE_WORDS, CAUSES
from core.decisions.export_tables import comment_table, removal_counts
from core.decisions.log import DecisionLog, Item
from core.decisions.queue_decisions import QueueDecisions, queue_items
from core.editing.net_effect import NO_CONTROL
from core.maml.evaluation import Interval
from core.review.forecast import forecast
from core.review.report_figures import calibration_charts, forecast_chart, image_section
from core.runtime.errors import UserError
from core.runtime.files import write_text_atomically
from core.runtime.progress import format_count
from core.workspace.runs import Run
from core.workspace.workspace import Project, Workspace

_TEMPLATE = Path(__file__).resolve().parents[2] / "assets" / "report.html.j2"
METHOD_NOTES = {
    "linear": "Linear edit: the full retrain as influence functions predict it. Nothing was trained.",
    "newton": "One damped Newton step on the changed tasks, accepted only if it lowers their loss.",
    "steps": "A few gradient steps on the changed tasks.",
    "finetune": "Fine-tuned briefly on the changed tasks.",
    "retrain": "Retrained from scratch on the changed tasks.",
}


def write_report(workspace: Workspace, path: Path) -> Path:
    """Write the report and return its path.

    Raises:
        UserError: there are no decisions, or the file cannot be written; an earlier one there is then unchanged.
    """
    text = report_html(workspace)
    if path.is_dir():
        raise UserError(f"{path} is a folder.", "Use the name of a file that ends in .html.")
    write_text_atomically(path, text)
    return path


def report_html(workspace: Workspace) -> str:
    """Return the report as HTML.

    It states what was reviewed and by whom, how many label errors were found and are expected to be left, and how many
    items were removed for other causes. It shows removed and relabelled images, conflicts, duplicates and leaks, the
    effect on accuracy, the method and provenance.
    """
    decisions = decision_table(workspace)
    if decisions.empty:
        raise UserError("There are no decisions to report.", "Decide on some items first.")
    project, queue, log = workspace.project(), newest_queue(workspace), workspace.decisions
    counts = decisions[decisions["standing"] == "counts"]
    removed = counts[counts["verdict"] == "remove"]
    removed_items = removed[removed["kind"] != "task"]
    by_cause = {cause: removed_items[removed_items["cause"] == cause] for cause in CAUSES}
    duplicates = newest_duplicates(workspace, project)
    summary = queue.json("summary.json") if queue else {}
    items = queue.table("items.parquet") if queue else None
    # Without a queue, everything that was decided on is its items.
    listed = [item for item in log.current() if item.kind != "task"] if items is None else queue_items(items)
    found = decisions_on(workspace, listed)
    values = {
        "about": provenance(workspace),
        "description": workspace.about,
        "figures": _figures(log, listed, found),
        "forecast": _forecast(items, found) if items is not None and summary.get("calibrated") else None,
        "calibration": _calibration(queue),
        "queue": summary,
        "sections": [
            image_section("Relabelled", counts[counts["verdict"] == "relabel"], project.images),
            *(image_section(f"Removed: {CAUSE_WORDS[one]}", by_cause[one], project.images) for one in CAUSES),
            image_section("Conflicts", decisions[decisions["standing"] == "conflict"], project.images),
        ],
        "removed_tasks": removed[removed["kind"] == "task"].replace({"cause": CAUSE_WORDS}).to_dict("records"),
        **_effects(workspace, project),
        "changes": workspace.changes(),
        "copies": summary_text(duplicates) if duplicates else [],
        "comments": comment_table(log).to_dict("records"),
        "tasks": {"train": len(project.tasks.train), "heldout": len(project.tasks.heldout)},
        "images": decisions["image_id"][decisions["image_id"] != ""].nunique(),
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["counted"] = format_count
    environment.filters["share"] = lambda interval, sign="": Interval(**interval).percent(sign, unit="")
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(values)


def _figures(log: DecisionLog, items: Sequence[Item], found: QueueDecisions) -> list[tuple[str, str]]:
    """Return the numbers of items by outcome, as labels and text.

    First the decisions on the queue's items and their labels, then what was removed for other causes, then the rest.
    """
    conflicts = log.conflicts()
    settled = {item: entry for item, entry in log.current().items() if entry.is_final and item not in conflicts}
    covered = {*items, *(Item("image", image_id=item.image_id) for item in items if item.kind == "instance")}
    outside = {item for item in (*log.current(), *conflicts) if item.kind != "task" and item not in covered}
    on_labels = {item for item, entry in settled.items() if entry.is_on_label}
    kept_for_others = {item for item, entry in settled.items() if entry.verdict == "keep"} - on_labels
    further = {
        **{f"removed: {CAUSE_WORDS[cause]}": n for cause, n in removal_counts(log).items() if cause != "label-error"},
        "kept, with another cause considered": sum(item.kind != "task" for item in kept_for_others),
        "labels decided outside the queue": len(outside & on_labels),
        "unsure outside the queue": len(outside - settled.keys() - conflicts.keys()),
        "in conflict outside the queue": len(outside & conflicts.keys()),
        "tasks removed": sum(item.kind == "task" and entry.verdict == "remove" for item, entry in settled.items()),
        "tasks in conflict": sum(item.kind == "task" for item in conflicts),
    }
    unsure = [position for position, entry in found.entries.items() if entry.verdict == "unsure"]
    counts = {
        "items decided": found.decided,
        "label errors (removed or relabelled)": found.errors_found,
        "labels kept": len(found.is_wrong) - found.errors_found,
        "unsure": len(set(unsure) - found.conflicts.keys()),
        "in conflict": len(found.conflicts),
        **{label: number for label, number in further.items() if number},
    }
    return [(label, f"{number:,}") for label, number in counts.items()]


def _forecast(items: pd.DataFrame, found: QueueDecisions) -> dict[str, Any] | None:
    """Return how many label errors are left, and the curve; None where they cannot be predicted."""
    expected = forecast(items, found.is_wrong)
    if expected is None:
        return None
    return {
        "decided": found.decided,
        "errors": found.errors_found,
        "of": len(items),
        "left": expected.remaining_errors(found.errors_found),
        "chart": forecast_chart(expected),
    }


def _calibration(queue: Run | None) -> dict[str, Any] | None:
    """Return how well the candidate rankings found the injected errors."""
    if queue is None or not (queue.folder / "curves.parquet").exists():
        return None
    table = queue.table("candidates.parquet")
    ordered = table.sort_values(["planted", "average_precision"], ascending=[True, False], kind="stable")
    charts = calibration_charts(queue.table("curves.parquet"), table)
    return {"charts": charts, "candidates": ordered.to_dict("records")}


def _effects(workspace: Workspace, project: Project) -> dict[str, Any]:
    """Return the results of edits with exactly these changes, and a sentence on what the procedures do without them."""
    changes = workspace.changes()
    results = edit_results(workspace, project, changes) if len(changes) else []
    rows = [
        {
            "kind": "estimate" if one.is_estimate else "measured",
            "words": METHOD_NOTES[one.method],
            "effect": None if one.effect is None else asdict(one.effect.accuracy),
            "accuracy": one.figures["accuracy"],
            "change": asdict(one.change),
            "cost": one.cost_text,
        }
        for one in results
    ]
    return {"effects": rows, "procedure": procedure_finding(results), "no_control": NO_CONTROL}
