"""Edited models: what a set of changes does to the model, estimated and measured.

Seven ways, from the cheapest to the one that the others stand for, each a run of its own with ``model/`` (the edited
model), ``heldout.parquet`` (its accuracy and loss on every held-out task) and ``edit.json`` (the figures; differences
to the unedited model are paired by task; cost in meta-gradients, :mod:`core.editing.cost`):

- ``linear``: lambda minus the influence functions of what changes. An **estimate** of what retraining gives.
- ``newton``: one step of Newton's method on the changed objective, within a trust region.
- ``steps``: a few preconditioned steps from the snapshot of the training that some held-out tasks like best, or from
  the present model where none were kept; begun at the Newton step they get no further and cost more (docs/results.md).
- ``steps-all``: as many on everything, so that what training longer gains is not taken for a
  gain of the changes.
- ``finetune``: a short fine-tune of the present model on the changed tasks.
- ``finetune-all``: the same on everything, for the same reason.
- ``retrain``: from the same initial parameters with the same settings as the model, on the changed tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from core.actions.compute import Compute, Loaded
from core.actions.evaluate import evaluation
from core.actions.rank import ENGINE_VERSION
from core.checkpoints.model import Model, save_model
from core.editing import methods as edit_ways
from core.editing.cost import Cost
from core.editing.methods import EditedModel, retraining_cost
from core.editing.settings import CONTROLS, EDIT_METHODS, STEP_METHODS, EditSettings, NewtonSettings
from core.editing.steps import StepSettings
from core.influence.methods import SolveSettings
from core.maml.evaluation import Interval, evaluate
from core.maml.training import SNAPSHOTS, TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

SOLVE = SolveSettings(curvature_tasks=32, damping=0.1)
"""Of the linear edit. It takes a far larger step than the removal of one thing that a ranking rates; with the damping
of a ranking it overshoots (docs/method.md)."""
NEWTON = NewtonSettings()
REWIND_TASKS = 8
"""Held-out tasks that choose the snapshot."""
_LEAST_STEPS = 40


def kind_of(way: str) -> str:
    """The kind of the runs of one way of editing."""
    return f"edit-{way}"


def step_settings(
    project: Project, budget: float = EditSettings.budget, rewind: bool = EditSettings.rewind
) -> StepSettings:
    """The steps that are, with the choice of where they begin, a share ``budget`` of what training the model took.

    They are 40 at least, and 40 where the model does not say how it was trained.

    Args:
        rewind: Begin at a snapshot of the training where such were kept, not at the present model.

    Raises:
        UserError: the budget is no share.
    """
    if not 0 < budget <= 1:
        raise UserError(f"The budget {budget:g} is no share of a retraining.", "Use more than 0 and at most 1.")
    whole = retraining_cost(project.model, len(project.tasks.train)) or 0.0
    rewind_tasks = REWIND_TASKS if rewind and project.snapshots else 0
    choice = Cost(evaluations=rewind_tasks * (SNAPSHOTS + 1)).meta_gradients
    return StepSettings(max(_LEAST_STEPS, round(budget * whole - choice)), rewind_tasks=rewind_tasks)


def start_text(figures: Mapping[str, Any]) -> str:
    """Where steps began that chose among snapshots; empty of others."""
    start = figures.get("start")
    if start is None:
        return ""
    end = len(start["losses"]) - 1
    where = (
        "the present model" if start["number"] == end else f"snapshot {start['number'] + 1} of {end} of its training"
    )
    return f"{where}, which {start['tasks']} held-out tasks liked best"


def cache_key(
    project: Project,
    way: str,
    changes: Changes,
    solver: SolveSettings,
    finetune: TrainSettings,
    compute: Compute,
    newton: NewtonSettings = NEWTON,
    budget: float = EditSettings.budget,
    rewind: bool = EditSettings.rewind,
) -> dict[str, Any]:
    """What names the edit, as :class:`core.workspace.runs.Runs` takes it."""
    question: dict[str, Any] = {**project.hashes, "dtype": compute.dtype}
    if way == "linear":
        question |= {"engine": ENGINE_VERSION, **asdict(solver)}
    if way == "newton":
        question |= {"newton": asdict(newton)}
    if way in STEP_METHODS:
        question |= {"steps": asdict(step_settings(project, budget, rewind))}
    if way.startswith("finetune"):
        question |= asdict(finetune)
    return question | ({} if way in CONTROLS else {"removal": changes.hash})


def edit(
    workspace: Workspace,
    way: str,
    changes: Changes,
    *,
    solver: SolveSettings,
    finetune: TrainSettings,
    newton: NewtonSettings = NEWTON,
    budget: float = EditSettings.budget,
    rewind: bool = EditSettings.rewind,
    compute: Compute,
    progress: Progress,
) -> Run:
    """Edit the model of the workspace in one of :data:`EDIT_METHODS`.

    Args:
        budget, rewind: Of ``steps`` (:func:`step_settings`).

    Raises:
        UserError: there is no such way, nothing is changed, nothing would be left, or the budget is no share.
    """
    if way not in EDIT_METHODS:
        raise UserError(f"There is no way of editing {way!r}.", f"Use one of {', '.join(EDIT_METHODS)}.")
    if not len(changes) and way not in CONTROLS:
        raise UserError("Nothing is removed or relabelled.", "Decide on tasks or images first.")
    project = workspace.project()
    changes = Changes() if way in CONTROLS else changes

    def steps(loaded: Loaded, run: RunWriter) -> EditedModel:
        settings = step_settings(project, budget, rewind)
        snapshots = [one.params for one in workspace.trajectory()] if settings.rewind_tasks else []
        return edit_ways.steps(loaded, changes, settings, snapshots, run, progress)

    def fine_tuned(loaded: Loaded, run: RunWriter) -> EditedModel:
        return edit_ways.finetune(loaded, changes, finetune, run, progress)

    editors: dict[str, Callable[[Loaded, RunWriter], EditedModel]] = {
        "linear": lambda loaded, run: edit_ways.linear(loaded, changes, solver, run, progress, workspace.runs),
        "newton": lambda loaded, run: edit_ways.newton(loaded, changes, newton, run, progress),
        "steps": steps,
        "steps-all": steps,
        "finetune": fine_tuned,
        "finetune-all": fine_tuned,
        "retrain": lambda loaded, run: edit_ways.retrain(loaded, changes, run, progress),
    }

    def work(run: RunWriter) -> None:
        before = evaluation(workspace, compute, progress).table("heldout.parquet")
        loaded = Loaded(project, compute)
        kept = cleaned(project.tasks.train, changes)  # says so if nothing is left, before anything long begins
        made = editors[way](loaded, run)
        progress.stage("held-out tasks", len(loaded.heldout))
        result = evaluate(loaded.model, made.params, loaded.heldout, progress.advance)
        after = result.heldout_table(project.tasks.heldout.task_ids)
        whole = retraining_cost(project.model, len(kept))
        figures = made.figures | {
            "way": way,
            "removed": changes.removed,
            "relabelled": changes.relabelled,
            "cost": {
                "meta_gradients": made.meta_gradients,
                "share_of_retraining": made.meta_gradients / whole if whole else None,
            },
            **result.summary(),
            "accuracy_change": asdict(Interval.of(after["accuracy"] - before["accuracy"])),
            "loss_change": asdict(Interval.of(after["loss"] - before["loss"])),
        }
        story = {"edited_from": project.hashes["model"], "removal": changes.hash, "figures": figures}
        edited = {name: value.cpu().float() for name, value in made.params.items()}
        run.write(lambda folder: save_model(Model(project.model.spec, edited, story), folder / "model"))
        run.write_table("heldout.parquet", after)
        run.write_json("edit.json", figures)

    question = cache_key(project, way, changes, solver, finetune, compute, newton, budget, rewind)
    return workspace.runs.get_or_compute(kind_of(way), question, work)
