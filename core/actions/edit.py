"""Edited models: what a set of changes does to the model, estimated and measured.

Four ways, each a run of its own with ``model/`` (the edited model), ``heldout.parquet`` (its accuracy and loss on
every held-out task) and ``edit.json`` (the figures; differences to the unedited model are paired by task):

- ``linear``: lambda minus the influence functions of what changes. An **estimate** of what retraining gives.
- ``finetune``: a short fine-tune of the present model on the changed tasks.
- ``finetune-all``: the same on everything, so that the gain of training a little longer is not taken for a gain
  of the changes.
- ``retrain``: from the same initial parameters with the same settings as the model, on the changed tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from core.actions.compute import Compute, Loaded
from core.actions.evaluate import evaluation, heldout_table, summary
from core.actions.rank import ENGINE
from core.actions.solve import Solver
from core.editing.linear import change_gradient, row_change, touched_tasks
from core.errors import UserError
from core.influence.methods import SolveSettings
from core.influence.targets import target_gradient
from core.maml.backbone import Params
from core.maml.checkpoint import Model, save_model
from core.maml.evaluation import Interval, evaluate
from core.maml.training import TrainSettings, stationarity, train
from core.maml.vectors import flatten, unflatten
from core.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.workspace.runs import Run, Runs, Work
from core.workspace.workspace import Project, Workspace

WAYS = ("linear", "finetune", "finetune-all", "retrain")
SOLVE = SolveSettings(curvature_tasks=32, damping=0.1)
"""Of the linear edit. It takes a far larger step than the removal of one thing that a ranking rates; with the damping
of a ranking it overshoots (docs/method.md)."""
FINETUNE = TrainSettings(iterations=40, learning_rate=1e-3, polish=0)


def kind_of(way: str) -> str:
    """The kind of the runs of one way of editing."""
    return f"edit-{way}"


def question_of(
    project: Project, way: str, changes: Changes, solver: SolveSettings, finetune: TrainSettings, compute: Compute
) -> dict[str, Any]:
    """What names the edit, as :class:`core.workspace.runs.Runs` takes it."""
    question: dict[str, Any] = {**project.hashes, "dtype": compute.dtype}
    if way == "linear":
        question |= {"engine": ENGINE, **asdict(solver)}
    if way.startswith("finetune"):
        question |= asdict(finetune)
    return question | ({} if way == "finetune-all" else {"removal": changes.hash})


def edit(
    workspace: Workspace,
    way: str,
    changes: Changes,
    *,
    solver: SolveSettings,
    finetune: TrainSettings,
    compute: Compute,
    progress: Progress,
) -> Run:
    """Edit the model of the workspace in one of :data:`WAYS`.

    Raises:
        UserError: there is no such way, nothing is changed, or nothing would be left.
    """
    if way not in WAYS:
        raise UserError(f"There is no way of editing {way!r}.", f"Use one of {', '.join(WAYS)}.")
    if not len(changes) and way != "finetune-all":
        raise UserError("Nothing is removed or relabelled.", "Decide on tasks or images first.")
    project = workspace.project()
    editors: dict[str, Callable[[Loaded, Changes, Work], tuple[Params, dict[str, Any]]]] = {
        "linear": lambda loaded, gone, run: _linear(loaded, gone, solver, run, progress, workspace.runs),
        "finetune": lambda loaded, gone, run: _finetune(loaded, gone, finetune, run, progress),
        "finetune-all": lambda loaded, gone, run: _finetune(loaded, Changes(), finetune, run, progress),
        "retrain": lambda loaded, gone, run: _retrain(loaded, gone, run, progress),
    }

    def work(run: Work) -> None:
        before = evaluation(workspace, compute, progress).table("heldout.parquet")
        loaded = Loaded(project, compute)
        cleaned(project.tasks.train, changes)  # says so if nothing is left, before anything long begins
        params, figures = editors[way](loaded, changes, run)
        progress.stage("held-out tasks", len(loaded.heldout))
        result = evaluate(loaded.model, params, loaded.heldout, progress.advance)
        after = heldout_table(project.tasks.heldout.task_ids, result)
        figures |= {
            "way": way,
            "removed": changes.removed,
            "relabelled": changes.relabelled,
            **summary(result),
            "accuracy_change": asdict(Interval.of(after["accuracy"] - before["accuracy"])),
            "loss_change": asdict(Interval.of(after["loss"] - before["loss"])),
        }
        story = {"edited_from": project.hashes["model"], "removal": changes.hash, "figures": figures}
        edited = {name: value.cpu().float() for name, value in params.items()}
        made = Model(project.model.spec, edited, story)
        run.write(lambda folder: save_model(made, folder / "model"))
        run.write_table("heldout.parquet", after)
        run.write_json("edit.json", figures)

    return workspace.runs.answer(kind_of(way), question_of(project, way, changes, solver, finetune, compute), work)


def _linear(
    loaded: Loaded, changes: Changes, settings: SolveSettings, run: Work, progress: Progress, runs: Runs
) -> tuple[Params, dict[str, Any]]:
    after, train = changes.applied(loaded.project.tasks.train), loaded.train
    progress.stage(
        "gradient of what changes", len(touched_tasks(train, row_change(train, after.weights, after.labels)))
    )
    with run.timed("gradient"):
        gradient = change_gradient(loaded.model, loaded.params, train, after.weights, after.labels, progress.advance)
    solver = Solver(loaded, loaded.model, settings, run, progress, runs)
    solution = solver.solve(gradient)
    with run.timed("target gradient"):
        v, _ = target_gradient(loaded.model, loaded.params, loaded.heldout)
    edited = unflatten(flatten(loaded.params) + solution.x, loaded.params)
    step = float(solution.x.norm() / flatten(loaded.params).norm())
    return edited, {
        "solver": solver.report(solution),
        "predicted_loss_change": float(v @ solution.x),
        "relative_step": step,
    }


def _finetune(
    loaded: Loaded, changes: Changes, settings: TrainSettings, run: Work, progress: Progress
) -> tuple[Params, dict[str, Any]]:
    left = loaded.episodes(cleaned(loaded.project.tasks.train, changes))
    with run.timed("fine-tune"):
        params = train(loaded.model, loaded.params, left, settings, progress=progress, name="fine-tune").params
    return params, {"settings": asdict(settings)}


def _retrain(loaded: Loaded, changes: Changes, run: Work, progress: Progress) -> tuple[Params, dict[str, Any]]:
    story = loaded.project.model.story
    try:
        settings = TrainSettings(**story["training"])
    except (KeyError, TypeError) as error:
        raise UserError(
            "The model's description does not say how it was trained, so it cannot be retrained the same way.",
            "Train it with the train command.",
        ) from error
    left = loaded.episodes(cleaned(loaded.project.tasks.train, changes))
    start = loaded.place(loaded.project.model.spec.init(settings.seed, torch.float64))
    with run.timed("retrain"):
        params = train(loaded.model, start, left, settings, folder=run.folder / "memory", progress=progress).params
    return params, {"settings": asdict(settings), "stationarity": asdict(stationarity(loaded.model, params, left))}
