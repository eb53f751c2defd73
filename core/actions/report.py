"""Write the review as one HTML file without scripts or external requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from core.actions.duplicates import newest_duplicates, summary_text
from core.actions.edit import run_kind
from core.actions.export_decisions import decision_table, provenance
from core.actions.queue import decisions_on, newest_queue
from core.actions.rank import ENGINE_VERSION
from core.decisions.export_tables import comment_table
from core.editing.settings import CONTROLS, EDIT_METHODS
from core.maml.evaluation import Interval
from core.review.forecast import forecast
from core.review.report_figures import calibration_charts, decision_counts, forecast_chart, image_section
from core.runtime.errors import UserError
from core.runtime.files import write_text_atomically
from core.runtime.progress import format_count
from core.workspace.runs import Run
from core.workspace.workspace import Project, Workspace

_TEMPLATE = Path(__file__).resolve().parents[2] / "assets" / "report.html.j2"
METHOD_NOTES = {
    "linear": ("estimate", "Linear edit: the full retrain as influence functions predict it. Nothing was trained."),
    "newton": ("measured", "One damped Newton step on the changed tasks, accepted only if it lowers their loss."),
    "steps": ("measured", "A few gradient steps on the changed tasks."),
    "steps-all": ("measured", "Control: as many gradient steps on the unchanged tasks."),
    "finetune": ("measured", "Fine-tuned briefly on the changed tasks."),
    "finetune-all": ("measured", "Control: fine-tuned for as long on the unchanged tasks."),
    "retrain": ("measured", "Retrained from scratch on the changed tasks."),
}


def write_report(workspace: Workspace, path: Path) -> Path:
    """Write the report and return its path.

    It states what was reviewed and by whom, how many label errors were found, and how many are expected to be left if
    the queue is calibrated. It shows removed and relabelled images and conflicts. It lists duplicates and leaks if they
    were searched, the effect on accuracy (measurements separate from estimates), the method and the provenance.

    Raises:
        UserError: there are no decisions, or the file cannot be written; an earlier one there is then unchanged.
    """
    text = report_html(workspace)
    if path.is_dir():
        raise UserError(f"{path} is a folder.", "Use the name of a file that ends in .html.")
    write_text_atomically(path, text)
    return path


def report_html(workspace: Workspace) -> str:
    """Return the HTML of :func:`write_report`."""
    decisions = decision_table(workspace)
    if decisions.empty:
        raise UserError("There are no decisions to report.", "Decide on some items first.")
    project, queue = workspace.project(), newest_queue(workspace)
    counts = decisions[decisions["standing"] == "counts"]
    removed = counts[counts["verdict"] == "remove"]
    duplicates = newest_duplicates(workspace, project)
    summary = queue.json("summary.json") if queue else {}
    values = {
        "about": provenance(workspace),
        "description": workspace.about,
        "figures": decision_counts(decisions),
        "forecast": _forecast(workspace, queue, summary),
        "calibration": _calibration(queue),
        "queue": summary,
        "sections": [
            image_section("Relabelled", counts[counts["verdict"] == "relabel"], project.images),
            image_section("Removed", removed[removed["kind"] != "task"], project.images),
            image_section("Conflicts", decisions[decisions["standing"] == "conflict"], project.images),
        ],
        "removed_tasks": removed[removed["kind"] == "task"].to_dict("records"),
        "effects": _effects(workspace, project),
        "changes": workspace.changes(),
        "copies": summary_text(duplicates) if duplicates else [],
        "comments": comment_table(workspace.decisions).to_dict("records"),
        "tasks": {"train": len(project.tasks.train), "heldout": len(project.tasks.heldout)},
        "images": decisions["image_id"][decisions["image_id"] != ""].nunique(),
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["counted"] = format_count
    environment.filters["share"] = lambda interval, sign="": Interval(**interval).percent(sign, unit="")
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(values)


def _forecast(workspace: Workspace, queue: Run | None, summary: dict[str, Any]) -> dict[str, Any] | None:
    """Return how many label errors are left, and the curve; None where the queue is not calibrated."""
    if queue is None or not summary.get("calibrated"):
        return None
    items = queue.table("items.parquet")
    decisions = decisions_on(workspace, items)
    expected = forecast(items, decisions.is_wrong)
    if expected is None:
        return None
    return {
        "checked": len(decisions.is_wrong),
        "errors": decisions.errors_found,
        "of": len(items),
        "left": expected.remaining_errors(decisions.errors_found),
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


def _effects(workspace: Workspace, project: Project) -> list[dict[str, Any]]:
    """Return the results of edits with exactly these changes: measurements first, then the estimate."""
    changes, effects = workspace.changes(), []
    for method in sorted(EDIT_METHODS, key=lambda method: (method == "linear", EDIT_METHODS.index(method))):
        key: dict[str, Any] = dict(project.hashes)
        if method not in CONTROLS:
            key["removal"] = changes.hash
        if method == "linear":
            key["engine"] = ENGINE_VERSION
        runs = workspace.runs.all(run_kind(method), key) if len(changes) else []
        if runs:
            kind, words = METHOD_NOTES[method]
            effects.append({"kind": kind, "words": words, "run": runs[0].id, **runs[0].json("edit.json")})
    return effects if any(effect["way"] not in CONTROLS for effect in effects) else []
