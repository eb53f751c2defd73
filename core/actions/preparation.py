"""Prepare what-if estimates: the basis and the stored gradients of :mod:`core.editing.prepared`, as a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.actions.compute import Compute, load
from core.editing.prepared import PROBES, SETTINGS, preparation_bytes, preparation_cost, prepare_estimates
from core.influence.basis import ENGINE_VERSION
from core.maml.cost import Cost
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
    """Compute and store what a :class:`core.editing.whatif.WhatIfEstimator` reads.

    The run holds the files of :func:`core.editing.prepared.prepare_estimates`.
    """
    project = workspace.project()

    def work(run: RunWriter) -> None:
        prepare_estimates(load(project, compute), SETTINGS, run, workspace.runs, progress)

    return workspace.runs.get_or_compute(KIND, cache_key(project, compute), work)


def prepare_cost(project: Project, compute: Compute) -> Cost:
    """Return the cost of :func:`prepare`."""
    tasks, dtype = project.tasks, compute.torch_dtype()
    return preparation_cost(tasks.train, len(tasks.heldout), project.model.size, dtype, SETTINGS)


def prepare_bytes(project: Project, compute: Compute) -> int:
    """Return the disk space of the gradients that :func:`prepare` stores."""
    tasks = project.tasks
    return preparation_bytes(tasks.train, len(tasks.heldout), project.model.size, compute.torch_dtype())
