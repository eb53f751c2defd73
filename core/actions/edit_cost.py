"""Predict what edits and their controls cost, before they are computed."""

from __future__ import annotations

from typing import Any

from core.actions.compute import Compute
from core.actions.edit import cache_key, finetune_settings, method_settings, run_kind
from core.editing.methods import procedure_cost
from core.editing.retraining import training_settings
from core.editing.settings import CONTROL_OF
from core.influence.methods import SolveSettings
from core.maml.cost import Pace, seconds_of, training_cost, training_passes
from core.tasks.changes import Changes
from core.workspace.workspace import Project, Workspace


def finetune_pace(workspace: Workspace, project: Project) -> Pace | None:
    """Return the seconds per meta-gradient of the newest fine-tune of the model; None before any on this machine."""
    for method in ("finetune-all", "finetune"):
        for run in workspace.runs.all(run_kind(method), {"model": project.hashes["model"]}):
            if run.is_precomputed:
                continue
            if seconds := run.json("provenance.json")["seconds"].get("fine-tune"):
                return Pace(seconds / training_cost(finetune_settings(run.config), len(project.tasks.train)))
    return None


def retraining_seconds(workspace: Workspace, project: Project) -> float | None:
    """Return the predicted seconds of retraining at the pace of the fine-tunes; None where that is not known."""
    settings, pace = training_settings(project.model), finetune_pace(workspace, project)
    if settings is None or pace is None:
        return None
    return seconds_of(training_passes(settings, len(project.tasks.train), project.tasks.validation_count), pace)


def control_cost(workspace: Workspace, project: Project, method: str, *, compute: Compute, **settings: Any) -> float:
    """Return the meta-gradients of the control that an edit computes with it; 0 if it is stored or there is none.

    Args:
        settings: As for :func:`core.actions.edit.method_settings`.
    """
    control = CONTROL_OF.get(method)
    if control is None:
        return 0.0
    if workspace.runs.find(run_kind(control), cache_key(project, control, Changes(), compute=compute, **settings)):
        return 0.0
    tasks, chosen = project.tasks, method_settings(project, method, **settings)
    if chosen is None:
        training = training_settings(project.model)
        return training_cost(training, len(tasks.train), tasks.validation_count) if training else 0.0
    return 0.0 if isinstance(chosen, SolveSettings) else procedure_cost(chosen, len(tasks.train))
