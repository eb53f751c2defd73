"""The methods that edit a model, one function each; :func:`edit_model` applies any of them and measures the result.

They are listed from the cheapest to the one that the others approximate. Every measured method has a control
(:data:`core.editing.settings.CONTROL_OF`): the same procedure on the unchanged tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch

from core.checkpoints.model import Model
from core.editing.linear import change_gradient, row_change, touched_tasks
from core.editing.newton import newton_edit
from core.editing.retraining import require_training_settings, training_settings
from core.editing.settings import CONTROLS, EDIT_METHODS, NewtonSettings
from core.editing.steps import StepSettings, select_snapshot, selection_cost, single_task_finetune
from core.influence.methods import SolveSettings
from core.influence.solve import Solver
from core.influence.targets import target_gradient
from core.maml.backbone import Params
from core.maml.cost import Cost, training_cost
from core.maml.evaluation import Evaluation, Interval, evaluate
from core.maml.loaded import Loaded
from core.maml.settings import TrainSettings
from core.maml.storage import ResultStore, ResultWriter
from core.maml.training import stationarity, train
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned

SOLVE = SolveSettings(curvature_tasks=32, damping=0.1)
"""Default solve of the linear edit. Its step is far longer than the removal of one item that a ranking scores; with the
damping of a ranking it overshoots (docs/method.md)."""
MethodSettings = SolveSettings | NewtonSettings | StepSettings | TrainSettings | None
"""Settings of an edit method; None for ``retrain``, which repeats the training of the model."""


@dataclass(frozen=True)
class EditedModel:
    """The result of an edit, with JSON-serialisable figures and the cost (:mod:`core.maml.cost`)."""

    params: Params
    figures: dict[str, Any]
    meta_gradients: float


def linear(
    loaded: Loaded,
    changes: Changes,
    settings: SolveSettings,
    writer: ResultWriter,
    progress: Progress,
    store: ResultStore | None = None,
    *,
    predict: bool = True,
) -> EditedModel:
    """Subtract the influence functions of what changes: an **estimate** of what retraining gives.

    Args:
        store: As for :class:`core.influence.solve.Solver`.
        predict: Also predict the change of the held-out loss, which takes one gradient per held-out task.

    Raises:
        UserError: the solve did not converge.
    """
    changed = changes.apply(loaded.tasks)
    touched = len(touched_tasks(loaded.train, row_change(loaded.train, changed.weights, changed.labels)))
    progress.stage("gradient of the changes", touched)
    with writer.timed("gradient"):
        gradient = change_gradient(
            loaded.model, loaded.params, loaded.train, changed.weights, changed.labels, progress.advance
        )
    solver = Solver(loaded, loaded.model, settings, writer, progress, store)
    solution = solver.solve(gradient)
    start = flatten(loaded.params)
    figures: dict[str, Any] = {"solver": solver.report(solution)}
    if predict:
        with writer.timed("target gradient"):
            target, _ = target_gradient(loaded.model, loaded.params, loaded.heldout)
        figures["predicted_loss_change"] = float(target @ solution.x)
    figures["relative_step"] = float(solution.x.norm() / start.norm())
    # A removal takes a gradient with a tangent per task; a relabelled task two gradients, before and after.
    cost = solver.cost + Cost(products=touched)
    return EditedModel(unflatten(start + solution.x, loaded.params), figures, cost.meta_gradients)


def newton(
    loaded: Loaded, changes: Changes, settings: NewtonSettings, writer: ResultWriter, progress: Progress
) -> EditedModel:
    """Take one Newton step on the changed objective, within a trust region."""
    episodes = loaded.episodes(cleaned(loaded.tasks, changes))
    with writer.timed("newton"):
        edit = newton_edit(loaded.model, loaded.params, episodes, settings, progress, writer.save_step)
    return EditedModel(edit.params, {"newton": edit.report}, edit.cost.meta_gradients)


def steps(
    loaded: Loaded,
    changes: Changes,
    settings: StepSettings,
    snapshots: Sequence[Params],
    writer: ResultWriter,
    progress: Progress,
) -> EditedModel:
    """Take a few preconditioned steps from the present model, or from one of the snapshots of its training.

    Args:
        snapshots: Candidates to begin at, in addition to the present model; unused if ``settings.rewind_tasks`` is 0.
    """
    episodes = loaded.episodes(cleaned(loaded.tasks, changes))
    candidates = [*map(loaded.place, snapshots), loaded.params]
    figures: dict[str, Any] = {"settings": asdict(settings)}
    start, cost = loaded.params, settings.cost
    with writer.timed("steps"):
        if settings.rewind_tasks:
            judges = loaded.validation or loaded.heldout
            choice = select_snapshot(loaded.model, candidates, judges, settings.rewind_tasks, settings.seed)
            start, cost = choice.params, cost + choice.cost
            losses = [loss if math.isfinite(loss) else None for loss in choice.losses]
            chosen_on = "held-out" if loaded.validation is None else "validation"
            figures["start"] = {"number": choice.number, "losses": losses, "tasks": choice.tasks, "kind": chosen_on}
        params = single_task_finetune(loaded.model, start, episodes, settings, progress, writer.folder / "memory")
    return EditedModel(params, figures, cost.meta_gradients)


def finetune(
    loaded: Loaded, changes: Changes, settings: TrainSettings, writer: ResultWriter, progress: Progress
) -> EditedModel:
    """Train briefly from the present model."""
    episodes = loaded.episodes(cleaned(loaded.tasks, changes))
    with writer.timed("fine-tune"):
        params = train(loaded.model, loaded.params, episodes, settings, progress=progress, name="fine-tune").params
    return EditedModel(params, {"settings": asdict(settings)}, training_cost(settings, len(episodes)))


def retrain(
    loaded: Loaded, changes: Changes, settings: TrainSettings, initial: Params, writer: ResultWriter, progress: Progress
) -> EditedModel:
    """Train from the initial parameters ``initial``, with the settings that the model was trained with."""
    episodes = loaded.episodes(cleaned(loaded.tasks, changes))
    start, folder = loaded.place(initial), writer.folder / "memory"
    with writer.timed("retrain"):
        trained = train(
            loaded.model, start, episodes, settings, validation=loaded.validation, folder=folder, progress=progress
        )
    params, cost = trained.params, training_cost(settings, len(episodes), loaded.validation_count)
    figures = {"settings": asdict(settings), "stationarity": asdict(stationarity(loaded.model, params, episodes))}
    return EditedModel(params, figures, cost)


def procedure_cost(settings: NewtonSettings | StepSettings | TrainSettings, tasks: int) -> float:
    """Return the cost of a measured method on ``tasks`` tasks beforehand, in meta-gradients."""
    match settings:
        case NewtonSettings():
            return settings.cost(tasks).meta_gradients
        case StepSettings():
            return (settings.cost + selection_cost(settings.rewind_tasks)).meta_gradients
        case TrainSettings():
            return training_cost(settings, tasks)


def cost_text(figures: Mapping[str, Any], seconds: float) -> str:
    """Return ``480 meta-gradients (3.3 % of retraining), 12.1 s``; edits of earlier versions have no cost."""
    duration = f"{seconds:.1f} s"
    if (cost := figures.get("cost")) is None:
        return duration
    share = cost["share_of_retraining"]
    part = "" if share is None else f" ({100 * share:.1f} % of retraining)"
    return f"{cost['meta_gradients']:,.0f} meta-gradients{part}, {duration}"


def check_method(method: str) -> None:
    """Raise UserError if there is no such edit method."""
    if method not in EDIT_METHODS:
        raise UserError(f"Unknown edit method {method!r}.", f"Use one of {', '.join(EDIT_METHODS)}.")


def applied_changes(method: str, changes: Changes) -> Changes:
    """Return the changes that a method applies: none for a control.

    Raises:
        UserError: the method is unknown, or there are no changes and it is not a control.
    """
    check_method(method)
    if method in CONTROLS:
        return Changes()
    changes.check_not_empty()
    return changes


def edit_model(
    method: str,
    settings: MethodSettings,
    loaded: Loaded,
    model: Model,
    changes: Changes,
    before: pd.DataFrame,
    writer: ResultWriter,
    progress: Progress,
    store: ResultStore | None = None,
    snapshots: Sequence[Params] = (),
) -> tuple[Model, Evaluation, dict[str, Any]]:
    """Edit a model; return it with its evaluation on the held-out tasks and the figures of the edit.

    The figures are the cost, and accuracy and loss with their changes, paired by held-out task.

    Args:
        changes: Those of :func:`applied_changes`.
        before: Accuracy and loss per held-out task of the unedited model.
        store, snapshots: As for :func:`linear` and :func:`steps`.

    Raises:
        UserError: no task would remain, the edit failed, or the model is to be retrained and its metadata does not say
            how it was trained.
    """
    remaining = cleaned(loaded.tasks, changes)  # raises before long work if no task would remain
    match settings:
        case SolveSettings():
            edited = linear(loaded, changes, settings, writer, progress, store)
        case NewtonSettings():
            edited = newton(loaded, changes, settings, writer, progress)
        case StepSettings():
            edited = steps(loaded, changes, settings, snapshots, writer, progress)
        case TrainSettings():
            edited = finetune(loaded, changes, settings, writer, progress)
        case None:
            original = require_training_settings(model)
            initial = model.spec.init(original.seed, torch.float64)
            edited = retrain(loaded, changes, original, initial, writer, progress)
    progress.stage("held-out tasks", len(loaded.heldout))
    result = evaluate(loaded.model, edited.params, loaded.heldout, progress.advance)
    training = training_settings(model)
    retraining_cost = training_cost(training, len(remaining), loaded.validation_count) if training else 0.0
    share = edited.meta_gradients / retraining_cost if retraining_cost else None
    figures = edited.figures | {"way": method, "removed": changes.removed, "relabelled": changes.relabelled}
    figures |= {
        "cost": {"meta_gradients": edited.meta_gradients, "share_of_retraining": share},
        **result.summary(),
        "accuracy_change": asdict(Interval.of(result.accuracy - before["accuracy"].to_numpy())),
        "loss_change": asdict(Interval.of(result.loss - before["loss"].to_numpy())),
    }
    params = {name: value.cpu().float() for name, value in edited.params.items()}
    metadata = {"edited_from": model.hash, "removal": changes.hash, "figures": figures}
    return Model(model.spec, params, metadata), result, figures
