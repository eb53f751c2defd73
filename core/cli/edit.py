"""The commands that edit a model and measure removal curves."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from core.cli.changes import chosen_changes
from core.cli.options import (
    DEFAULT_WORKSPACE,
    ChunkOption,
    CurvatureOption,
    CurvatureTasksOption,
    DampingOption,
    DeviceOption,
    DtypeOption,
    FinetuneOption,
    RankOption,
    SolveIterationsOption,
    SolverOption,
    SolveSeedOption,
    SubsampleOption,
    ToleranceOption,
    WorkspaceOption,
    chosen_compute,
    chosen_ranking,
    live_progress,
    open_workspace,
)
from core.runtime.distributed import world
from core.runtime.errors import UserError


def edit(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    how: Annotated[
        list[str] | None,
        typer.Option(
            help="linear, newton, steps, steps-all, finetune, finetune-all or retrain; may be given several times. "
            "If not given, those that take seconds: linear, newton, finetune, finetune-all."
        ),
    ] = None,
    named_set: Annotated[
        str, typer.Option("--set", help="Name of a what-if set, instead of what reviewers decided.")
    ] = "",
    finetune_steps: FinetuneOption = 40,
    budget: Annotated[
        float, typer.Option(help="Of steps, as a share of what training the model took; at least 40 steps are made.")
    ] = 0.02,
    rewind: Annotated[
        bool,
        typer.Option(
            help="Begin steps at the snapshot of the training that some held-out tasks like best, where snapshots were "
            "kept, or at the present model."
        ),
    ] = True,
    curvature: CurvatureOption = None,
    solver: SolverOption = None,
    curvature_tasks: CurvatureTasksOption = None,
    subsample: SubsampleOption = None,
    damping: DampingOption = None,
    rank: RankOption = None,
    tolerance: ToleranceOption = None,
    solve_iterations: SolveIterationsOption = None,
    solve_seed: SolveSeedOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Edit the model for what reviewers removed and relabelled, and measure it on the held-out tasks."""
    from dataclasses import replace

    from core.actions.edit import SOLVE, start_text
    from core.actions.edit import edit as edit_action
    from core.editing.settings import DEFAULT_EDIT_METHODS, FINETUNE

    opened = open_workspace(workspace)
    changes, progress = world().on_rank_zero(lambda: chosen_changes(opened, named_set)), live_progress()
    compute = chosen_compute(device, dtype, chunk)
    given: dict[str, Any] = {
        "curvature": curvature,
        "solver": solver,
        "curvature_tasks": curvature_tasks,
        "subsample": subsample,
        "damping": damping,
        "rank": rank,
        "tolerance": tolerance,
        "iterations": solve_iterations,
        "seed": solve_seed,
    }
    settings = replace(SOLVE, **{name: value for name, value in given.items() if value is not None})
    finetune = replace(FINETUNE, iterations=finetune_steps)
    for way in how or DEFAULT_EDIT_METHODS:
        run = edit_action(
            opened,
            way,
            changes,
            solver=settings,
            finetune=finetune,
            budget=budget,
            rewind=rewind,
            compute=compute,
            progress=progress,
        )
        figures = run.json("edit.json")
        accuracy, change = figures["accuracy"], figures["accuracy_change"]
        print(
            f"{way}: held-out accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], "
            f"change {change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]{cost_words(figures)}"
            + (f", begun at {words}" if (words := start_text(figures)) else ""),
            file=sys.stderr,
        )
        print(run.folder)


def cost_words(figures: dict[str, Any]) -> str:
    """What an edit took; edits of earlier versions do not say it."""
    if "cost" not in figures:
        return ""
    cost, share = figures["cost"]["meta_gradients"], figures["cost"]["share_of_retraining"]
    return f", cost {cost:,.0f} meta-gradients" + ("" if share is None else f" ({share:.1%} of retraining)")


def curve(
    ranking: Annotated[str, typer.Option(help="Id of a rank run, or newest.")] = "newest",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    by: Annotated[str, typer.Option(help="tasks or images.")] = "tasks",
    shares: Annotated[str, typer.Option(help="Shares to remove, with commas.")] = "0,0.1,0.2,0.3,0.4,0.5",
    orders: Annotated[str, typer.Option(help="harmful, loss, random; with commas.")] = "harmful,loss,random",
    seeds: Annotated[int, typer.Option(help="Repetitions.")] = 3,
    finetune_steps: FinetuneOption = 40,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Accuracy against the share removed: most harmful first, highest loss first, and at random."""
    from dataclasses import replace

    from core.actions.curve import CurveSettings
    from core.actions.curve import curve as curve_action
    from core.editing.settings import FINETUNE

    opened = open_workspace(workspace)
    try:
        numbers = tuple(float(share) for share in shares.split(","))
    except ValueError as error:
        raise UserError(f"The shares {shares!r} are not numbers.", "For example 0,0.1,0.2.") from error
    run = curve_action(
        opened,
        chosen_ranking(opened, ranking),
        CurveSettings(by, numbers, tuple(orders.split(",")), seeds),
        replace(FINETUNE, iterations=finetune_steps),
        chosen_compute(device, dtype, chunk),
        live_progress(),
    )
    print(run.folder)
