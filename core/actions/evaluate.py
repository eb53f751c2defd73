"""Evaluate the model on the held-out tasks, and measure its distance from a stationary point of its objective."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.actions.compute import Compute, load
from core.influence.inner import inner_report
from core.influence.scores import class_of
from core.maml.evaluation import evaluate
from core.maml.training import stationarity
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "evaluate"
VERSION = 2  # raised whenever the contents of the run change


def cache_key(project: Project, compute: Compute) -> dict[str, Any]:
    """Return the cache key of the evaluation."""
    return {**project.hashes, "version": VERSION, "dtype": compute.dtype}


def evaluation(workspace: Workspace, compute: Compute, progress: Progress) -> Run:
    """Evaluate the model of the workspace.

    The run holds ``heldout.parquet`` (task_id, accuracy, loss), ``rows.parquet`` (rows of
    :class:`core.maml.evaluation.Evaluation`, with predicted_class) and ``summary.json`` (accuracy and loss with 95 %
    confidence intervals; :class:`core.maml.training.Stationarity`; of implicit adaptation
    :class:`core.influence.inner.InnerReport`).
    """
    project = workspace.project()

    def work(run: RunWriter) -> None:
        loaded, heldout = load(project, compute), project.tasks.heldout
        progress.stage("held-out tasks", len(loaded.heldout))
        with run.timed("held-out tasks"):
            result = evaluate(loaded.model, loaded.params, loaded.heldout, progress.advance)
        with run.timed("stationarity"):
            report = stationarity(loaded.model, loaded.params, loaded.train, progress)
        run.write_table("heldout.parquet", result.heldout_table(heldout.task_ids))
        run.write_table("rows.parquet", result.rows.assign(predicted_class=class_of(heldout.rows, result.rows)))
        inner = inner_report(loaded.model, loaded.params, loaded.train)
        figures = asdict(inner) | {"nearly_singular": inner.nearly_singular} if inner else None
        run.write_json("summary.json", {**result.summary(), "stationarity": asdict(report), "inner": figures})

    return workspace.runs.get_or_compute(KIND, cache_key(project, compute), work)
