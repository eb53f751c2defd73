"""Edit the model for a set of changes and measure it, by one of the methods of :mod:`core.editing.methods`.

Each edit is a run with ``model/``, ``heldout.parquet`` (accuracy and loss on every held-out task) and ``edit.json``
(figures; differences to the unedited model are paired by task; cost in meta-gradients, :mod:`core.maml.cost`). The
result of ``linear`` is an **estimate** of retraining; those of the other methods are measurements.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.actions.compute import Compute, load
from core.actions.evaluate import evaluation
from core.checkpoints.model import save_model
from core.editing.methods import SOLVE, MethodSettings, applied_changes, edit_model
from core.editing.retraining import training_settings
from core.editing.settings import CONTROLS, FINETUNE, NEWTON, EditSettings, NewtonSettings
from core.editing.steps import REWIND_TASKS, StepSettings
from core.editing.steps import step_settings as steps_for
from core.influence.basis import ENGINE_VERSION
from core.influence.methods import SolveSettings
from core.maml.cost import Pace, seconds_of, training_cost, training_passes
from core.maml.settings import TrainSettings
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace


def run_kind(method: str) -> str:
    """Return the kind of the runs of an edit method."""
    return f"edit-{method}"


def step_settings(
    project: Project, budget: float = EditSettings.budget, rewind: bool = EditSettings.rewind
) -> StepSettings:
    """Return the steps for a share ``budget`` of the cost of training the model; raise UserError if it is no share.

    With ``rewind`` they begin at a snapshot of the training if there are any, else at the present model.
    """
    rewind_tasks = REWIND_TASKS if rewind and project.snapshots else 0
    return steps_for(training_settings(project.model), len(project.tasks.train), budget, rewind_tasks)


def method_settings(
    project: Project,
    method: str,
    *,
    solver: SolveSettings = SOLVE,
    finetune: TrainSettings = FINETUNE,
    newton: NewtonSettings = NEWTON,
    budget: float = EditSettings.budget,
    rewind: bool = EditSettings.rewind,
) -> MethodSettings:
    """Return those of the settings that an edit method uses."""
    name = method.removesuffix("-all")
    if name == "steps":
        return step_settings(project, budget, rewind)
    of_method: dict[str, MethodSettings] = {"linear": solver, "newton": newton, "finetune": finetune}
    return of_method.get(name)


def cache_key(project: Project, method: str, changes: Changes, *, compute: Compute, **settings: Any) -> dict[str, Any]:
    """Return the cache key of an edit; the further settings are those of :func:`method_settings`."""
    key = {**_problem_key(project, method, changes), "dtype": compute.dtype}
    chosen = method_settings(project, method, **settings)
    if chosen is None:
        return key
    if isinstance(chosen, TrainSettings):
        return key | chosen.cache_key()
    is_nested = isinstance(chosen, NewtonSettings | StepSettings)
    return key | ({method.removesuffix("-all"): asdict(chosen)} if is_nested else asdict(chosen))


def _problem_key(project: Project, method: str, changes: Changes) -> dict[str, Any]:
    """Return the part of the cache key of an edit that does not depend on its settings."""
    key: dict[str, Any] = dict(project.hashes)
    if method not in CONTROLS:
        key["removal"] = changes.hash
    if method == "linear":
        key["engine"] = ENGINE_VERSION
    return key


def finished_edits(workspace: Workspace, project: Project, method: str, changes: Changes) -> list[Run]:
    """Return the finished edits by a method with exactly these changes, whatever their settings, newest first."""
    return workspace.runs.all(run_kind(method), _problem_key(project, method, changes))


def edit(
    workspace: Workspace, method: str, changes: Changes, *, compute: Compute, progress: Progress, **settings: Any
) -> Run:
    """Edit the model by one of :data:`core.editing.settings.EDIT_METHODS`, or find the earlier run.

    Args:
        settings: As for :func:`method_settings`.

    Raises:
        UserError: the method is unknown, there are no changes, no task would remain, the budget is not a share, or the
            model is to be retrained and its metadata does not say how it was trained.
    """
    changes, project = applied_changes(method, changes), workspace.project()
    chosen = method_settings(project, method, **settings)

    def work(run: RunWriter) -> None:
        before = evaluation(workspace, compute, progress).table("heldout.parquet")
        is_rewound = isinstance(chosen, StepSettings) and chosen.rewind_tasks
        snapshots = [one.params for one in workspace.trajectory()] if is_rewound else []
        loaded, model = load(project, compute), project.model
        edited, result, figures = edit_model(
            method, chosen, loaded, model, changes, before, run, progress, workspace.runs, snapshots
        )
        run.write(lambda folder: save_model(edited, folder / "model"))
        run.write_table("heldout.parquet", result.heldout_table(project.tasks.heldout.task_ids))
        run.write_json("edit.json", figures)

    key = cache_key(project, method, changes, compute=compute, **settings)
    return workspace.runs.get_or_compute(run_kind(method), key, work)


def finetune_pace(workspace: Workspace, project: Project) -> Pace | None:
    """Return the seconds per meta-gradient of the newest fine-tune of the model; None before any fine-tune."""
    for method in ("finetune-all", "finetune"):
        for run in workspace.runs.all(run_kind(method), {"model": project.hashes["model"]}):
            if seconds := run.json("provenance.json")["seconds"].get("fine-tune"):
                settings = TrainSettings(**{name: run.config[name] for name in TrainSettings().cache_key()})
                return Pace(seconds / training_cost(settings, len(project.tasks.train)))
    return None


def retraining_seconds(workspace: Workspace, project: Project) -> float | None:
    """Return the predicted seconds of retraining at the pace of the fine-tunes; None where that is not known."""
    settings, pace = training_settings(project.model), finetune_pace(workspace, project)
    if settings is None or pace is None:
        return None
    validation = 0 if project.tasks.validation is None else len(project.tasks.validation)
    return seconds_of(training_passes(settings, len(project.tasks.train), validation), pace)
