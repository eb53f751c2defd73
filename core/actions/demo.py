"""Run the whole workflow on a demo workspace in one command."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.actions.compute import Compute
from core.actions.decide import mark
from core.actions.edit import edit
from core.actions.edit_results import edit_result, procedure_finding
from core.actions.evaluate import evaluation
from core.actions.export import export
from core.actions.rank import detection_of, ranking
from core.editing.curves import Point, removal_of
from core.influence.methods import DEFAULT, estimator
from core.influence.targets import Target
from core.maml.evaluation import Interval
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.workspace.demos import DEMOS, open_demo
from core.workspace.runs import Run

QUICK: dict[str, Any] = {"curvature_tasks": 16, "damping": 0.003}
"""Settings with a small sample of the curvature: the workflow takes minutes, the dashboard's default longer."""
_EDITS = {
    "linear": "linear edit, an estimate of retraining",
    "finetune": "fine-tuned on the remaining tasks, measured",
    "finetune-all": "fine-tuned on all tasks (its control), measured",
}


def run_demo(name: str, folder: Path, compute: Compute, progress: Progress, report: Callable[[str], None]) -> Path:
    """Evaluate, rank, compare with the injected noise, remove the most harmful, edit, export; return the export folder.

    Removes as many items as have injected noise, by influence, under the reviewer name ``demo``.
    """
    seconds: dict[str, float] = {}

    def timed(stage: str, action: Callable[..., Run], *args: Any) -> Run:
        start = time.perf_counter()
        run = action(workspace, *args, compute=compute, progress=progress)
        seconds[stage] = time.perf_counter() - start
        return run

    workspace, method = open_demo(name, folder), estimator(DEFAULT, **QUICK)
    report(f"\n{name}: {DEMOS[name]}")
    before = timed("evaluate", evaluation).json("summary.json")
    ranked = timed("rank", ranking, Target(), method)
    table, planted = detection_of(workspace, ranked), workspace.project().tasks.planted
    if table is None or planted is None:
        raise UserError(f"The demo {name} has no planted.parquet.", "Install TaskLens again.")
    report(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    by = "tasks" if "task_id" in planted.columns else "images"
    scores = ranked.table(f"{by}.parquet")
    count = planted["task_id" if by == "tasks" else "image_id"].nunique()
    removal = removal_of(scores, by, Point("harmful", count / len(scores), 0))
    if not workspace.decisions.current():
        tasks, images = sorted(removal.tasks), sorted(removal.images)
        why: dict[str, Any] = {"cause": "harmful", "reason": "most harmful", "source": ranked.id}
        mark(workspace, tasks=tasks, images=images, reviewer="demo", **why)
    results = [edit_result(workspace, timed(name, edit, name, removal)) for name in _EDITS]
    report(f"\nheld-out accuracy with 95 % intervals, {len(removal)} most harmful {by} removed:")
    report(f"  {'unedited model, measured':<48} {Interval(**before['accuracy']).percent()}")
    for one in results:
        effect = "" if one.effect is None else f"   net effect {one.effect.accuracy.percent('+', ' points')}"
        report(f"  {_EDITS[one.method]:<48} {Interval(**one.figures['accuracy']).percent()}{effect}")
    if finding := procedure_finding(results):
        report(finding)
    out = export(workspace, workspace.folder / "exports" / "demo")
    report("\nseconds: " + ", ".join(f"{stage} {duration:.0f}" for stage, duration in seconds.items()))
    return out
