"""The review as one HTML file that needs nothing else: no script, no request, readable in ten years."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from core.actions.duplicates import newest_duplicates, sentences
from core.actions.edit import run_kind
from core.actions.export_decisions import comment_table, decision_table, provenance
from core.actions.queue import decisions_on, newest_queue
from core.actions.rank import ENGINE_VERSION
from core.actions.report_figures import COLOURS, Line, chart, thumbnail
from core.editing.settings import CONTROLS, EDIT_METHODS
from core.review.forecast import forecast
from core.runtime.errors import UserError
from core.runtime.files import write_text_atomically
from core.workspace.runs import Run
from core.workspace.workspace import Project, Workspace

MOST_TILES = 120
"""Pictures of one kind that are shown; the rest are counted. 360 of 28 pixels come to half a megabyte."""
_TEMPLATE = Path(__file__).resolve().parents[2] / "assets" / "report.html.j2"
_WORDS = {
    "linear": ("estimate", "Linear edit: what influence functions expect of a full retrain. Nothing was trained."),
    "newton": ("measured", "One step of Newton's method on the changed tasks, as long as it lowered their loss."),
    "steps": ("measured", "A few small steps on the changed tasks."),
    "steps-all": ("measured", "Control: as many small steps on the unchanged tasks."),
    "finetune": ("measured", "Fine-tuned for a short time on the changed tasks."),
    "finetune-all": ("measured", "Control: fine-tuned as long on the unchanged tasks."),
    "retrain": ("measured", "Trained anew in full on the changed tasks."),
}


@dataclass(frozen=True)
class Section:
    """A grid of pictures: (data URI, words for those who do not see it, first line, second line, details)."""

    title: str
    tiles: list[tuple[str, str, str, str, str]]
    more: int


def write_report(workspace: Workspace, path: Path) -> Path:
    """Write the report.

    It says what was reviewed and by whom, how many wrong labels were found, and how many are expected to be left where
    the queue is calibrated. It shows what was removed and relabelled, and conflicts. It tells of copies and leaks where
    they were looked for, of the effect on accuracy (what is measured apart from what is estimated), of the method and
    of the provenance.

    Raises:
        UserError: nothing was decided, or the file cannot be written; an earlier one there is then as it was.
    """
    text = report(workspace)
    if path.is_dir():
        raise UserError(f"{path} is a folder.", "Give the name of a file that ends in .html.")
    write_text_atomically(path, text)
    return path


def report(workspace: Workspace) -> str:
    """The HTML of :func:`write_report`."""
    decisions = decision_table(workspace)
    if decisions.empty:
        raise UserError("Nothing was decided yet, so there is nothing to report.", "Decide on some items first.")
    project, queue = workspace.project(), newest_queue(workspace)
    counts = decisions[decisions["standing"] == "counts"]
    found = newest_duplicates(workspace, project)
    summary = queue.json("summary.json") if queue else {}
    values = {
        "about": provenance(workspace),
        "description": workspace.about,
        "figures": _figures(decisions),
        "forecast": _forecast(workspace, queue, summary),
        "calibration": _calibration(queue),
        "queue": summary,
        "sections": [
            _section("Relabelled", counts[counts["verdict"] == "relabel"], project),
            _section("Removed", counts[(counts["verdict"] == "remove") & (counts["kind"] != "task")], project),
            _section("Conflicts", decisions[decisions["standing"] == "conflict"], project),
        ],
        "removed_tasks": counts[(counts["verdict"] == "remove") & (counts["kind"] == "task")].to_dict("records"),
        "effects": _effects(workspace, project),
        "changes": workspace.changes(),
        "copies": sentences(found) if found else [],
        "comments": comment_table(workspace).to_dict("records"),
        "tasks": {"train": len(project.tasks.train), "heldout": len(project.tasks.heldout)},
        "images": decisions["image_id"][decisions["image_id"] != ""].nunique(),
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["share"] = _share
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(values)


def _figures(decisions: pd.DataFrame) -> list[tuple[str, str]]:
    items = decisions.drop_duplicates(["kind", "task_id", "role", "image_id"], keep="last")
    counted, tasks = items[items["standing"] == "counts"], items["kind"] == "task"
    verdicts = Counter(counted.loc[~tasks[counted.index], "verdict"])
    removed = int((counted.loc[tasks[counted.index], "verdict"] == "remove").sum())
    return [
        ("decided", f"{len(items):,}"),
        ("wrong labels (removed or relabelled)", f"{verdicts['remove'] + verdicts['relabel']:,}"),
        ("kept", f"{verdicts['keep']:,}"),
        ("unsure", f"{verdicts['unsure']:,}"),
        ("in conflict", f"{(items['standing'] == 'conflict').sum():,}"),
        *([("tasks removed", f"{removed:,}")] if removed else []),
    ]


def _forecast(workspace: Workspace, queue: Run | None, summary: dict[str, Any]) -> dict[str, Any] | None:
    """Expected wrong labels that are left, and the curve; None where the queue is not calibrated."""
    if queue is None or not summary.get("calibrated"):
        return None
    items = queue.table("items.parquet")
    decisions = decisions_on(workspace, items)
    expected = forecast(items, decisions.is_wrong)
    if expected is None:
        return None
    depth = np.arange(len(items) + 1)
    lines = [
        Line("found by then", depth, expected.found, expected.found_low, expected.found_high),
        Line("left after that", depth, expected.remaining, expected.remaining_low, expected.remaining_high),
    ]
    return {
        "checked": len(decisions.is_wrong),
        "errors": decisions.errors_found,
        "of": len(items),
        "left": expected.remaining_errors(decisions.errors_found),
        "chart": chart(
            lines,
            title="Wrong labels expected by depth of the queue, with 90 % intervals",
            x_label="items checked from the top of the queue",
            y_label="wrong labels",
        ),
    }


def _calibration(queue: Run | None) -> dict[str, Any] | None:
    """How the candidate rankings found planted errors."""
    if queue is None or not (queue.folder / "curves.parquet").exists():
        return None
    curves, charts, rows = queue.table("curves.parquet"), [], list[dict[str, Any]]()
    drawn = list(dict.fromkeys(curves["candidate"]))
    if (queue.folder / "candidates.parquet").exists():
        table = queue.table("candidates.parquet")
        by_mean = table.groupby("candidate")["average_precision"].mean().sort_values(ascending=False, kind="stable")
        chosen = list(table.loc[table["chosen"], "candidate"].unique())
        drawn = [name for name in dict.fromkeys([*chosen, *by_mean.index, *drawn]) if name in set(drawn)]
        table = table.sort_values(["planted", "average_precision"], ascending=[True, False], kind="stable")
        rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    drawn = drawn[: COLOURS - 1]
    for planted, some in curves[curves["candidate"].isin(drawn)].groupby("planted", sort=True):
        by_name = dict(list(some.sort_values("checked").groupby("candidate")))
        lines = [
            Line(str(name), np.r_[0.0, by_name[name]["checked"]], np.r_[0.0, by_name[name]["found"]])
            for name in drawn
            if name in by_name
        ]
        lines.append(Line("chance", np.array([0.0, 1.0]), np.array([0.0, 1.0]), dashed=True))
        charts.append(
            chart(
                lines,
                title=f"Planted errors found ({planted}) by the ranking and the next best scores",
                x_label="share of the items checked",
                y_label="share found",
                percent=True,
            )
        )
    return {"charts": charts, "candidates": rows}


def _section(title: str, rows: pd.DataFrame, project: Project) -> Section:
    rows = rows[rows["image_id"] != ""]
    grouped = list(rows.groupby(["kind", "task_id", "role", "image_id"], sort=False))
    tiles = []
    for (_, task, role, image), some in grouped[:MOST_TILES]:
        given = str(some["given"].iloc[-1])
        said = [f"→ {row.label}" if row.verdict == "relabel" else str(row.verdict) for row in some.itertuples()]
        who = [f"{row.reviewer}: {one}" for row, one in zip(some.itertuples(), said, strict=True)]
        second = " / ".join(dict.fromkeys(said)) if len(some) > 1 else said[0]
        where = f"{role} of {task}" if task else "everywhere"
        reason = "; ".join(dict.fromkeys(filter(None, some["reason"])))
        pixels = project.images.images[project.images.index[image]]
        words = f"{image}, given {given}, {second}"
        details = f"{image} ({where}). {'; '.join(who)}{'. ' + reason if reason else ''}"
        tiles.append((thumbnail(pixels), words, f"given {given}", second, details))
    return Section(title, tiles, len(grouped) - len(tiles))


def _effects(workspace: Workspace, project: Project) -> list[dict[str, Any]]:
    """What is known of the effect of exactly these changes: measurements first, then the estimate."""
    changes, found = workspace.changes(), []
    for way in sorted(EDIT_METHODS, key=lambda way: (way == "linear", EDIT_METHODS.index(way))):
        belongs: dict[str, Any] = dict(project.hashes)
        if way not in CONTROLS:
            belongs["removal"] = changes.hash
        if way == "linear":
            belongs["engine"] = ENGINE_VERSION
        runs = [run for run in workspace.runs.all(run_kind(way)) if belongs.items() <= run.config.items()]
        if runs and len(changes):
            kind, words = _WORDS[way]
            figures = runs[0].json("edit.json")
            found.append({"kind": kind, "words": words, "run": runs[0].id, **figures})
    return found if any(one["way"] not in CONTROLS for one in found) else []


def _share(interval: dict[str, float], sign: str = "") -> str:
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
