"""Edit the model for a set of changes and measure it, by one of the methods of :mod:`core.editing.methods`.

Each edit is a separate run with ``model/`` (the edited model), ``heldout.parquet`` (its accuracy and loss on every
held-out task) and ``edit.json`` (the figures; differences to the unedited model are paired by task; cost in
meta-gradients, :mod:`core.maml.cost`). The result of ``linear`` is an **estimate** of what retraining gives; those of
the other methods are measurements of the models that they train.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from core.actions.compute import Compute, load
from core.actions.evaluate import evaluation
from core.checkpoints.model import Model, save_model
from core.editing import methods
from core.editing.methods import SOLVE, EditedModel, measured_figures
from core.editing.retraining import require_training_settings, training_settings
from core.editing.settings import CONTROLS, EDIT_METHODS, FINETUNE, NEWTON, STEP_METHODS, EditSettings, NewtonSettings
from core.editing.steps import REWIND_TASKS, StepSettings
from core.editing.steps import step_settings as steps_for
from core.influence.basis import ENGINE_VERSION
from core.influence.methods import SolveSettings
from core.maml.cost import training_cost
from core.maml.evaluation import evaluate
from core.maml.loaded import Loaded
from core.maml.settings import TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace


def run_kind(method: str) -> str:
    """Return the kind of the runs of an edit method."""
    return f"edit-{method}"


def step_settings(
    project: Project, budget: float = EditSettings.budget, rewind: bool = EditSettings.rewind
) -> StepSettings:
    """Return the steps for a share ``budget`` of the cost of training the model.

    Args:
        rewind: Begin at a snapshot of the training where there are any, not at the present model.

    Raises:
        UserError: the budget is not a share.
    """
    rewind_tasks = REWIND_TASKS if rewind and project.snapshots else 0
    return steps_for(training_settings(project.model), len(project.tasks.train), budget, rewind_tasks)


def cache_key(
    project: Project,
    method: str,
    changes: Changes,
    solver: SolveSettings,
    finetune: TrainSettings,
    compute: Compute,
    newton: NewtonSettings = NEWTON,
    budget: float = EditSettings.budget,
    rewind: bool = EditSettings.rewind,
) -> dict[str, Any]:
    """Return the cache key of an edit."""
    key: dict[str, Any] = {**project.hashes, "dtype": compute.dtype}
    if method == "linear":
        key |= {"engine": ENGINE_VERSION, **asdict(solver)}
    if method == "newton":
        key |= {"newton": asdict(newton)}
    if method in STEP_METHODS:
        key |= {"steps": asdict(step_settings(project, budget, rewind))}
    if method.startswith("finetune"):
        key |= asdict(finetune)
    return key | ({} if method in CONTROLS else {"removal": changes.hash})


def edit(
    workspace: Workspace,
    method: str,
    changes: Changes,
    *,
    solver: SolveSettings = SOLVE,
    finetune: TrainSettings = FINETUNE,
    newton: NewtonSettings = NEWTON,
    budget: float = EditSettings.budget,
    rewind: bool = EditSettings.rewind,
    compute: Compute,
    progress: Progress,
) -> Run:
    """Edit the model of the workspace by one of :data:`core.editing.methods.EDIT_METHODS`, or find the earlier run.

    Args:
        budget, rewind: Settings of ``steps`` (:func:`step_settings`).

    Raises:
        UserError: the method is unknown, there are no changes, no task would remain, the budget is not a share, or the
            model is to be retrained and its metadata does not say how it was trained.
    """
    if method not in EDIT_METHODS:
        raise UserError(f"Unknown edit method {method!r}.", f"Use one of {', '.join(EDIT_METHODS)}.")
    if not len(changes) and method not in CONTROLS:
        raise UserError("There are no changes.", "Remove or relabel tasks or images first.")
    project = workspace.project()
    changes = Changes() if method in CONTROLS else changes

    def run_steps(loaded: Loaded, run: RunWriter) -> EditedModel:
        settings = step_settings(project, budget, rewind)
        snapshots = [one.params for one in workspace.trajectory()] if settings.rewind_tasks else []
        return methods.steps(loaded, changes, settings, snapshots, run, progress)

    def run_retrain(loaded: Loaded, run: RunWriter) -> EditedModel:
        settings = require_training_settings(project.model)
        return methods.retrain(
            loaded, changes, settings, project.model.spec.init(settings.seed, torch.float64), run, progress
        )

    functions: dict[str, Callable[[Loaded, RunWriter], EditedModel]] = {
        "linear": lambda loaded, run: methods.linear(loaded, changes, solver, run, progress, workspace.runs),
        "newton": lambda loaded, run: methods.newton(loaded, changes, newton, run, progress),
        "steps": run_steps,
        "finetune": lambda loaded, run: methods.finetune(loaded, changes, finetune, run, progress),
        "retrain": run_retrain,
    }

    def work(run: RunWriter) -> None:
        before = evaluation(workspace, compute, progress).table("heldout.parquet")
        loaded, training = load(project, compute), training_settings(project.model)
        remaining = cleaned(project.tasks.train, changes)  # raises before long work if no task would remain
        edited = functions[method.removesuffix("-all")](loaded, run)
        progress.stage("held-out tasks", len(loaded.heldout))
        result = evaluate(loaded.model, edited.params, loaded.heldout, progress.advance)
        whole = training_cost(training, len(remaining)) if training else None
        description = {"way": method, "removed": changes.removed, "relabelled": changes.relabelled}
        figures = edited.figures | description | measured_figures(edited, result, before, whole)
        metadata = {"edited_from": project.hashes["model"], "removal": changes.hash, "figures": figures}
        params = {name: value.cpu().float() for name, value in edited.params.items()}
        run.write(lambda folder: save_model(Model(project.model.spec, params, metadata), folder / "model"))
        run.write_table("heldout.parquet", result.heldout_table(project.tasks.heldout.task_ids))
        run.write_json("edit.json", figures)

    key = cache_key(project, method, changes, solver, finetune, compute, newton, budget, rewind)
    return workspace.runs.get_or_compute(run_kind(method), key, work)
