"""Evaluate the model on the held-out tasks, and list what fails, and what harms it most."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from core.actions.compute import Compute, load
from core.influence.inner import inner_report
from core.influence.scores import class_of
from core.influence.targets import Target
from core.maml.evaluation import evaluate
from core.maml.training import stationarity
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "evaluate"
MAX_FAILING_IMAGES = 500
"""Failing images that are listed, the highest loss first."""
VERSION = 2  # raised whenever the contents of the run change


def cache_key(project: Project, compute: Compute) -> dict[str, Any]:
    """Return the cache key of the evaluation."""
    return {**project.hashes, "version": VERSION, "dtype": compute.dtype}


def evaluation(workspace: Workspace, compute: Compute, progress: Progress) -> Run:
    """Evaluate the model of the workspace, and measure its distance from a stationary point of its objective.

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


def failing_tasks(heldout: pd.DataFrame) -> list[Target]:
    """Return the tasks of ``heldout.parquet`` of an evaluation, the lowest accuracy first, then the highest loss."""
    ranked = heldout.sort_values(["accuracy", "loss"], ascending=[True, False], kind="stable")
    return [Target((task,)) for task in ranked["task_id"]]


def failing_images(rows: pd.DataFrame) -> list[Target]:
    """Return the misclassified query images of ``rows.parquet`` of an evaluation, the highest loss first."""
    errors = rows[rows["predicted"] != rows["label"]].sort_values("loss", ascending=False, kind="stable")
    errors = errors.head(MAX_FAILING_IMAGES)
    return [Target((task,), image) for task, image in zip(errors["task_id"], errors["image_id"], strict=True)]


def most_harmful(table: pd.DataFrame, by: str, count: int) -> Changes:
    """Return the removal of the ``count`` most harmful items, fewer where fewer are harmful.

    Args:
        table: Scores of ``tasks`` or ``images`` (``by``), the most harmful first
            (:class:`core.editing.whatif.TargetScores`).

    Raises:
        UserError: no item has a harmful score.
    """
    harmful = table[table["score"] < 0].head(count)
    if harmful.empty:
        raise UserError(f"No {by} have a harmful score for this target.", "There is nothing to remove.")
    return Changes.named(**{by: list(harmful[f"{by[:-1]}_id"])})
