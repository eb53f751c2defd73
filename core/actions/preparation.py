"""Prepare what-if estimates as a run, and open their estimator."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.actions.compute import Compute, load
from core.actions.evaluate import KIND as EVALUATION
from core.actions.evaluate import cache_key as evaluation_key
from core.editing.prepared import (
    PROBES,
    SETTINGS,
    PreparedFiles,
    preparation_bytes,
    preparation_cost,
    prepare_estimates,
)
from core.editing.whatif import WhatIfEstimator
from core.influence.basis import ENGINE_VERSION
from core.maml.cost import Cost, Pace, seconds_of
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "whatif"


def cache_key(project: Project, compute: Compute) -> dict[str, Any]:
    """Return the cache key of the preparation."""
    return {**project.hashes, "engine": ENGINE_VERSION, **asdict(SETTINGS), "probes": PROBES, "dtype": compute.dtype}


def find_preparation(workspace: Workspace, compute: Compute) -> Run | None:
    """Return the finished preparation for the present problem; None if there is none."""
    return workspace.runs.find(KIND, cache_key(workspace.project(), compute))


def prepare(workspace: Workspace, compute: Compute, progress: Progress) -> Run:
    """Compute and store the files of :func:`core.editing.prepared.prepare_estimates`, which the estimator reads."""
    project = workspace.project()

    def work(run: RunWriter) -> None:
        prepare_estimates(load(project, compute), SETTINGS, run, workspace.runs, progress)

    return workspace.runs.get_or_compute(KIND, cache_key(project, compute), work)


def open_estimator(workspace: Workspace, compute: Compute) -> WhatIfEstimator:
    """Return the estimator for the workspace's present problem; open it once and reuse it.

    Raises:
        UserError: nothing is prepared for the problem, or a prepared file is damaged.
    """
    run = find_preparation(workspace, compute)
    if run is None:
        raise UserError("What-if estimates are not prepared for this problem.", "Run whatif --prepare.")
    basis = workspace.runs.get(run.json("report.json")["basis"]).folder
    return WhatIfEstimator(load(workspace.project(), compute), PreparedFiles(run.folder, basis))


def prepare_cost(project: Project, compute: Compute) -> Cost:
    """Return the cost of :func:`prepare`."""
    tasks, dtype = project.tasks, compute.torch_dtype()
    return preparation_cost(tasks.train, len(tasks.heldout), project.model.size, dtype, SETTINGS)


def preparation_seconds(workspace: Workspace, project: Project, compute: Compute) -> float | None:
    """Return the predicted seconds of :func:`prepare` at the pace of an evaluation here; None without one."""
    run = workspace.runs.find(EVALUATION, evaluation_key(project, Compute()))
    seconds = run.json("provenance.json")["seconds"].get("stationarity") if run and not run.is_precomputed else None
    return seconds_of(prepare_cost(project, compute), Pace(seconds / len(project.tasks.train))) if seconds else None


def prepare_bytes(project: Project, compute: Compute) -> int:
    """Return the disk space of the gradients that :func:`prepare` stores."""
    tasks = project.tasks
    return preparation_bytes(tasks.train, len(tasks.heldout), project.model.size, compute.torch_dtype())
