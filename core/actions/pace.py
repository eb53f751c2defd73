"""Predict durations at the pace that finished runs of the workspace had (:mod:`core.maml.cost`)."""

from __future__ import annotations

from dataclasses import fields

from core.actions.compute import Compute
from core.actions.edit import run_kind
from core.actions.evaluate import KIND as EVALUATION
from core.actions.evaluate import cache_key as evaluation_key
from core.actions.preparation import prepare_cost
from core.editing.retraining import training_settings
from core.maml.cost import Pace, seconds_of, training_cost, training_passes
from core.maml.settings import TrainSettings
from core.workspace.workspace import Project, Workspace


def finetune_pace(workspace: Workspace, project: Project) -> Pace | None:
    """Return the seconds per meta-gradient of the newest fine-tune of the model; None before any fine-tune."""
    for method in ("finetune-all", "finetune"):
        for run in workspace.runs.all(run_kind(method), {"model": project.hashes["model"]}):
            if seconds := run.json("provenance.json")["seconds"].get("fine-tune"):
                settings = TrainSettings(**{field.name: run.config[field.name] for field in fields(TrainSettings)})
                return Pace(seconds / training_cost(settings, len(project.tasks.train)))
    return None


def evaluation_pace(workspace: Workspace, project: Project) -> Pace | None:
    """Return the seconds per meta-gradient of the evaluation of the model; None before it."""
    run = workspace.runs.find(EVALUATION, evaluation_key(project, Compute()))
    seconds = run.json("provenance.json")["seconds"].get("stationarity") if run else None
    return Pace(seconds / len(project.tasks.train)) if seconds else None


def retraining_seconds(workspace: Workspace, project: Project) -> float | None:
    """Return the predicted seconds of retraining at the pace of the fine-tunes; None where that is not known."""
    settings, pace = training_settings(project.model), finetune_pace(workspace, project)
    if settings is None or pace is None:
        return None
    return seconds_of(training_passes(settings, len(project.tasks.train)), pace)


def preparation_seconds(workspace: Workspace, project: Project, compute: Compute) -> float | None:
    """Return the predicted seconds of preparing what-ifs at the pace of the evaluation; None where it is not known."""
    pace = evaluation_pace(workspace, project)
    return None if pace is None else seconds_of(prepare_cost(project, compute), pace)
