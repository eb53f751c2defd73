"""Edit the model for a set of changes and measure it, by one of the methods of :mod:`core.editing.methods`.

Each edit is a run with ``model/``, ``heldout.parquet`` (accuracy and loss on every held-out task) and ``edit.json``
(figures; differences to the unedited model are paired by task; cost in meta-gradients, :mod:`core.maml.cost`). The
result of ``linear`` is an **estimate** of retraining; those of the other methods are measurements. Each of these comes
with its control, a run of its own that all edits by the same procedure share (:mod:`core.editing.net_effect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from core.actions.compute import Compute, load
from core.actions.evaluate import evaluation
from core.checkpoints.model import save_model
from core.editing.methods import SOLVE, MethodSettings, applied_changes, check_method, edit_model
from core.editing.retraining import training_settings
from core.editing.settings import (
    CONTROL_OF,
    CONTROLS,
    FINETUNE,
    METHOD_OF,
    NEWTON,
    EditSettings,
    FinetuneSettings,
    NewtonSettings,
)
from core.editing.steps import REWIND_TASKS, StepSettings
from core.editing.steps import step_settings as steps_for
from core.influence.basis import ENGINE_VERSION
from core.influence.methods import SolveSettings
from core.maml.settings import TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import NamedProgress, Progress
from core.runtime.settings import check_names, settings_of
from core.tasks.changes import Changes
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace


def run_kind(method: str) -> str:
    """Return the kind of the runs of an edit method."""
    return f"edit-{method}"


def method_of(run: Run) -> str:
    """Return the edit method of a run."""
    return run.kind.removeprefix(run_kind(""))


def step_settings(
    project: Project, budget: float = EditSettings.budget, rewind: bool = EditSettings.rewind
) -> StepSettings:
    """Return the steps for a share ``budget`` of the cost of training the model; raise UserError if it is no share.

    With ``rewind`` they begin at a snapshot of the training if there are any, else at the present model.
    """
    rewind_tasks = REWIND_TASKS if rewind and project.snapshots else 0
    training, tasks = training_settings(project.model), project.tasks
    return steps_for(training, len(tasks.train), tasks.validation_count, budget, rewind_tasks)


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
    name = METHOD_OF.get(method, method)
    if name == "steps":
        return step_settings(project, budget, rewind)
    of_method: dict[str, MethodSettings] = {"linear": solver, "newton": newton, "finetune": finetune}
    return of_method.get(name)


def named_settings(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`method_settings` takes, of settings that the user of the Python API gave by name.

    Args:
        given: For linear, fields of :class:`SolveSettings`; for newton, of :class:`NewtonSettings`; for steps, budget
            and rewind of :class:`EditSettings`; for finetune, of :class:`FinetuneSettings`. Controls take the same.

    Raises:
        UserError: the method is unknown or has no such setting, or a value is invalid.
    """
    check_method(method)
    name = METHOD_OF.get(method, method)
    if name == "linear":
        check_names(given, [field.name for field in fields(SolveSettings)])
        return {"solver": replace(SOLVE, **given)}
    if name == "newton":
        return {"newton": settings_of(NewtonSettings, given)}
    if name == "finetune":
        return {"finetune": settings_of(FinetuneSettings, given).training}
    if name == "steps":
        chosen = settings_of(EditSettings, given, without=("methods",))
        return {"budget": chosen.budget, "rewind": chosen.rewind}
    if given:
        raise UserError(f"The method {method} has no settings.", f"Omit {', '.join(given)}.")
    return {}


def cache_key(project: Project, method: str, changes: Changes, *, compute: Compute, **settings: Any) -> dict[str, Any]:
    """Return the cache key of an edit; the further settings are those of :func:`method_settings`."""
    key = {**_problem_key(project, method, changes), "dtype": compute.dtype}
    chosen = method_settings(project, method, **settings)
    if chosen is None:
        return key
    if isinstance(chosen, TrainSettings):
        return key | chosen.cache_key()
    is_nested = isinstance(chosen, NewtonSettings | StepSettings)
    return key | ({METHOD_OF.get(method, method): asdict(chosen)} if is_nested else asdict(chosen))


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

    The control of the method is computed too, unless it is stored.

    Args:
        settings: As for :func:`method_settings`.

    Raises:
        UserError: the method is unknown, there are no changes, no task would remain, the budget is not a share, or the
            model is to be retrained and its metadata does not say how it was trained.
    """
    changes, project = applied_changes(method, changes), workspace.project()
    chosen = method_settings(project, method, **settings)
    key = cache_key(project, method, changes, compute=compute, **settings)
    run = _get_or_compute(workspace, project, method, chosen, changes, key, compute, progress)
    if method in CONTROL_OF:
        compute_control(workspace, run, compute, progress)
    return run


def find_control(workspace: Workspace, run: Run) -> Run | None:
    """Return the control of an edit: the run with the same settings and no changes; None if there is none."""
    control = CONTROL_OF.get(method_of(run))
    return None if control is None else workspace.runs.find(run_kind(control), _control_key(run))


def compute_control(workspace: Workspace, run: Run, compute: Compute, progress: Progress) -> Run:
    """Compute the control of a finished edit with the settings and precision of that edit, unless it is stored.

    Raises:
        UserError: the edit is of another model or other tasks, or it has no control.
    """
    project, method = workspace.project(), method_of(run)
    if method not in CONTROL_OF:
        raise UserError(f"{run.id} has no control.", f"These edits have one: {', '.join(CONTROL_OF)}.")
    if not project.hashes.items() <= run.config.items():
        raise UserError(f"{run.id} is an edit of another model or of other tasks.", "Edit the present model.")
    chosen = _stored_settings(method, run.config)
    compute, named = replace(compute, dtype=run.config["dtype"]), NamedProgress(progress, "control")
    key = _control_key(run)
    return _get_or_compute(workspace, project, CONTROL_OF[method], chosen, Changes(), key, compute, named)


def _control_key(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.config.items() if name not in ("kind", "removal")}


def _stored_settings(method: str, config: Mapping[str, Any]) -> MethodSettings:
    match method:
        case "newton":
            return NewtonSettings(**config["newton"])
        case "steps":
            return StepSettings(**config["steps"])
        case "finetune":
            return finetune_settings(config)
    return None


def finetune_settings(config: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a fine-tune from its cache key."""
    names = [field.name for field in fields(TrainSettings)]
    return TrainSettings(**{name: config[name] for name in names if name in config})


def _get_or_compute(
    workspace: Workspace,
    project: Project,
    method: str,
    settings: MethodSettings,
    changes: Changes,
    key: Mapping[str, Any],
    compute: Compute,
    progress: Progress,
) -> Run:
    def work(run: RunWriter) -> None:
        before = evaluation(workspace, compute, progress).table("heldout.parquet")
        is_rewound = isinstance(settings, StepSettings) and settings.rewind_tasks
        snapshots = [one.params for one in workspace.trajectory()] if is_rewound else []
        loaded, model = load(project, compute), project.model
        edited, result, figures = edit_model(
            method, settings, loaded, model, changes, before, run, progress, workspace.runs, snapshots
        )
        run.write(lambda folder: save_model(edited, folder / "model"))
        run.write_table("heldout.parquet", result.heldout_table(project.tasks.heldout.task_ids))
        run.write_json("edit.json", figures)

    return workspace.runs.get_or_compute(run_kind(method), key, work)
