"""The demo: two workspaces made from what ships in ``assets/``, and the whole path through each in one go."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from core.actions.compute import Compute
from core.actions.curve import Point, part
from core.actions.edit import SOLVE, edit
from core.actions.evaluate import evaluation
from core.actions.export import export
from core.actions.rank import ranking
from core.decisions.log import Decision, Item
from core.editing.settings import FINETUNE
from core.evidence.detection import detection
from core.influence.methods import DEFAULT, estimator
from core.influence.targets import Target
from core.runtime.errors import UserError
from core.runtime.files import home
from core.runtime.progress import Progress
from core.workspace.runs import Run
from core.workspace.workspace import Workspace, create

QUICK: dict[str, Any] = {"curvature_tasks": 16, "damping": 0.003}
"""A small sample of the curvature, so that the whole path takes minutes; the dashboard's own settings take longer."""
ASSETS = Path(__file__).resolve().parents[2] / "assets" / "demo"
DEMOS = {
    "demo-noisy-tasks": "40 % of the training tasks have 80 % of their labels flipped",
    "demo-noisy-images": "10 % of the training images were mislabelled before tasks were drawn",
}


def open_demo(name: str, folder: Path | None = None) -> Workspace:
    """The workspace of a demo, made from the shipped tasks and model if it is not there yet."""
    if name not in DEMOS:
        raise UserError(f"There is no demo {name!r}.", f"There are: {', '.join(DEMOS)}.")
    place, source = (folder or home()) / name, ASSETS / name
    if (place / "workspace.json").exists():
        return Workspace(place)  # made by this or an earlier version; decisions may already lie in it
    return create(place, source / "tasks", source / "model", about={"about": DEMOS[name]})


def detection_of(workspace: Workspace, run: Run) -> pd.DataFrame | None:
    """How well a ranking finds what was planted; None where nothing was planted."""
    planted = workspace.project().tasks.planted
    if planted is None:
        return None
    return detection(planted, run.table("tasks.parquet"), run.table("instances.parquet"), run.table("images.parquet"))


def walk(name: str, folder: Path, compute: Compute, progress: Progress, say: Callable[[str], None]) -> Path:
    """Evaluate, rank, rate the ranking against the planted noise, remove the most harmful, edit, export.

    Removes as many items as were planted, by influence, under the reviewer name ``demo``.

    Returns:
        The folder of the export.
    """
    clock: dict[str, float] = {}

    def timed(stage: str, run: Callable[[], Run]) -> Run:
        start = time.perf_counter()
        done = run()
        clock[stage] = time.perf_counter() - start
        return done

    workspace, quick = open_demo(name, folder), estimator(DEFAULT, **QUICK)
    project = workspace.project()
    say(f"\n{name}: {DEMOS[name]}")
    before = timed("evaluate", lambda: evaluation(workspace, compute, progress)).json("summary.json")
    ranked = timed("rank", lambda: ranking(workspace, Target(), quick, compute, progress))
    table = detection_of(workspace, ranked)
    planted = project.tasks.planted
    if table is None or planted is None:
        raise UserError(f"The demo {name} has lost its planted.parquet.", "Install TaskLens again.")
    say(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    by = "tasks" if "task_id" in planted.columns else "images"
    scores = ranked.table(f"{by}.parquet")
    bad = planted["task_id" if by == "tasks" else "image_id"].nunique()
    removal = part(scores, by, Point("harmful", bad / len(scores), 0))
    items = [Item("task", task_id=i) for i in sorted(removal.tasks)]
    items += [Item("image", image_id=i) for i in sorted(removal.images)]
    if not workspace.decisions.current():
        workspace.decisions.append(
            [Decision(item, "remove", reason="most harmful", reviewer="demo", source=ranked.id) for item in items]
        )
    rows = [("unedited model, measured", before["accuracy"], None)]
    for way, label in (
        ("linear", "linear edit, an estimate of retraining"),
        ("finetune", "fine-tuned on what is left, measured"),
        ("finetune-all", "fine-tuned on everything, measured"),
    ):

        def one(way: str = way) -> Run:
            return edit(
                workspace,
                way,
                removal,
                solver=SOLVE,
                finetune=FINETUNE,
                compute=compute,
                progress=progress,
            )

        figures = timed(way, one).json("edit.json")
        rows.append((label, figures["accuracy"], figures["accuracy_change"]))
    say(f"\nheld-out accuracy with 95 % intervals, {len(items)} most harmful {by} removed:")
    for label, level, change in rows:
        gain = "" if change is None else f"   change {_percent(change, '+')}"
        say(f"  {label:<42} {_percent(level)}{gain}")
    out = export(workspace, workspace.folder / "exports" / "demo")
    say("\nseconds: " + ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in clock.items()))
    return out


def _percent(interval: dict[str, float], sign: str = "") -> str:
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:{sign}.1f} % [{low:{sign}.1f}, {high:{sign}.1f}]"
