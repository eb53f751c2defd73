"""How good the model is on the held-out tasks, and how far it is from a stationary point of its objective."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from core.actions.compute import Compute, Loaded
from core.influence.inner import inner_report
from core.influence.scores import class_of
from core.maml.evaluation import Evaluation, evaluate
from core.maml.training import stationarity
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "evaluate"
VERSION = 2  # raised whenever what the run holds changes


def cache_key(project: Project, compute: Compute) -> dict[str, Any]:
    """What names the evaluation, as :class:`core.workspace.runs.Runs` takes it."""
    return {**project.hashes, "version": VERSION, "dtype": compute.dtype}


def evaluation(workspace: Workspace, compute: Compute, progress: Progress) -> Run:
    """Evaluate the model of the workspace.

    The run holds ``heldout.parquet`` (task_id, accuracy, loss), ``rows.parquet`` (every query image of the held-out
    tasks, :class:`core.maml.evaluation.Evaluation`, with predicted_class) and ``summary.json`` (accuracy and loss with
    95 % intervals; objective, gradient_norm and ratio of :class:`core.maml.training.Stationarity`; where adaptation is
    implicit, :class:`core.influence.inner.InnerReport`).
    """
    project = workspace.project()
    question = cache_key(project, compute)

    def work(run: RunWriter) -> None:
        loaded = Loaded(project, compute)
        progress.stage("held-out tasks", len(loaded.heldout))
        with run.timed("held-out tasks"):
            result = evaluate(loaded.model, loaded.params, loaded.heldout, progress.advance)
        with run.timed("stationarity"):
            report = stationarity(loaded.model, loaded.params, loaded.train, progress)
        run.write_table("heldout.parquet", heldout_table(project.tasks.heldout.task_ids, result))
        rows = result.rows.assign(predicted_class=class_of(project.tasks.heldout.rows, result.rows))
        run.write_table("rows.parquet", rows)
        inner = inner_report(loaded.model, loaded.params, loaded.train)
        told = asdict(inner) | {"nearly_singular": inner.nearly_singular} if inner else None
        run.write_json("summary.json", {**summary(result), "stationarity": asdict(report), "inner": told})

    return workspace.runs.get_or_compute(KIND, question, work)


def heldout_table(task_ids: list[str], result: Evaluation) -> pd.DataFrame:
    return pd.DataFrame({"task_id": task_ids, "accuracy": result.accuracy, "loss": result.loss})


def summary(result: Evaluation) -> dict[str, Any]:
    return {"accuracy": asdict(result.mean_accuracy), "loss": asdict(result.mean_loss), "tasks": len(result.accuracy)}
