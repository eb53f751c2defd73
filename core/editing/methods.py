"""The ways of editing a model, one function each: the edited parameters, figures about them, and what they took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from core.actions.compute import Loaded
from core.checkpoints.model import Model
from core.editing.cost import Cost, training_cost
from core.editing.linear import change_gradient, row_change, touched_tasks
from core.editing.newton import NewtonSettings, newton_edit
from core.editing.steps import StepSettings, select_snapshot, single_task_finetune
from core.influence.methods import SolveSettings
from core.influence.solve import Solver
from core.influence.targets import target_gradient
from core.maml.backbone import Params
from core.maml.training import TrainSettings, stationarity, train
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.workspace.runs import Runs, RunWriter


@dataclass(frozen=True)
class EditedModel:
    """What a way of editing gives.

    Attributes:
        meta_gradients: What it took (:mod:`core.editing.cost`).
    """

    params: Params
    figures: dict[str, Any]
    meta_gradients: float


def trained_with(model: Model) -> TrainSettings | None:
    """How a model was trained; None where it does not say so."""
    try:
        return TrainSettings(**model.story["training"])
    except (KeyError, TypeError, UserError):
        return None


def retraining_cost(model: Model, tasks: int) -> float | None:
    """Meta-gradients of training it again on that many tasks; None where it does not say how it was trained."""
    settings = trained_with(model)
    return None if settings is None else training_cost(settings, tasks)


def linear(
    loaded: Loaded,
    changes: Changes,
    settings: SolveSettings,
    run: RunWriter,
    progress: Progress,
    runs: Runs,
    *,
    predict: bool = True,
) -> EditedModel:
    """Return lambda minus the influence functions of what changes.

    Args:
        predict: Also predict how the held-out loss changes, which takes one gradient of every held-out task.
    """
    after, tasks = changes.applied(loaded.project.tasks.train), loaded.train
    change = row_change(tasks, after.weights, after.labels)
    touched = len(touched_tasks(tasks, change))
    progress.stage("gradient of what changes", touched)
    with run.timed("gradient"):
        gradient = change_gradient(loaded.model, loaded.params, tasks, after.weights, after.labels, progress.advance)
    solver = Solver(loaded, loaded.model, settings, run, progress, runs)
    solution = solver.solve(gradient)
    edited = unflatten(flatten(loaded.params) + solution.x, loaded.params)
    figures: dict[str, Any] = {"solver": solver.report(solution)}
    if predict:
        with run.timed("target gradient"):
            v, _ = target_gradient(loaded.model, loaded.params, loaded.heldout)
        figures["predicted_loss_change"] = float(v @ solution.x)
    figures["relative_step"] = float(solution.x.norm() / flatten(loaded.params).norm())
    # Of a task that loses something a gradient with a tangent; of a relabelled one two, before and after.
    cost = solver.cost + Cost(products=touched)
    return EditedModel(edited, figures, cost.meta_gradients)


def newton(
    loaded: Loaded, changes: Changes, settings: NewtonSettings, run: RunWriter, progress: Progress
) -> EditedModel:
    """One step of Newton's method on the changed objective, within a trust region."""
    kept = loaded.episodes(cleaned(loaded.project.tasks.train, changes))
    with run.timed("newton"):
        made = newton_edit(loaded.model, loaded.params, kept, settings, progress, run.save_step)
    return EditedModel(made.params, {"newton": made.report}, made.cost.meta_gradients)


def steps(
    loaded: Loaded,
    changes: Changes,
    settings: StepSettings,
    snapshots: Sequence[Params],
    run: RunWriter,
    progress: Progress,
) -> EditedModel:
    """A few preconditioned steps from the present model, or from one of the snapshots of its training before it."""
    kept = loaded.episodes(cleaned(loaded.project.tasks.train, changes))
    candidates = [*map(loaded.place, snapshots), loaded.params]
    figures: dict[str, Any] = {"settings": asdict(settings)}
    start, cost = loaded.params, settings.cost
    with run.timed("steps"):
        if settings.rewind_tasks:
            chosen = select_snapshot(loaded.model, candidates, loaded.heldout, settings.rewind_tasks, settings.seed)
            start, cost = chosen.params, cost + chosen.cost
            losses = [loss if math.isfinite(loss) else None for loss in chosen.losses]
            figures["start"] = {"number": chosen.number, "losses": losses, "tasks": chosen.tasks}
        params = single_task_finetune(loaded.model, start, kept, settings, progress, run.folder / "memory")
    return EditedModel(params, figures, cost.meta_gradients)


def finetune(
    loaded: Loaded, changes: Changes, settings: TrainSettings, run: RunWriter, progress: Progress
) -> EditedModel:
    """A short training from the present model."""
    left = loaded.episodes(cleaned(loaded.project.tasks.train, changes))
    with run.timed("fine-tune"):
        params = train(loaded.model, loaded.params, left, settings, progress=progress, name="fine-tune").params
    return EditedModel(params, {"settings": asdict(settings)}, training_cost(settings, len(left)))


def retrain(loaded: Loaded, changes: Changes, run: RunWriter, progress: Progress) -> EditedModel:
    """The training of the model again, on the changed tasks."""
    settings = trained_with(loaded.project.model)
    if settings is None:
        raise UserError(
            "The model's description does not say how it was trained, so it cannot be retrained the same way.",
            "Train it with the train command.",
        )
    left = loaded.episodes(cleaned(loaded.project.tasks.train, changes))
    start = loaded.place(loaded.project.model.spec.init(settings.seed, torch.float64))
    with run.timed("retrain"):
        params = train(loaded.model, start, left, settings, folder=run.folder / "memory", progress=progress).params
    figures = {"settings": asdict(settings), "stationarity": asdict(stationarity(loaded.model, params, left))}
    return EditedModel(params, figures, training_cost(settings, len(left)))
