"""The commands that evaluate a model and rank its training data."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from core.cli.options import (
    DEFAULT_WORKSPACE,
    ChunkOption,
    CurvatureOption,
    CurvatureTasksOption,
    DampingOption,
    DeviceOption,
    DtypeOption,
    EvaluationOption,
    GradientOption,
    InnerOption,
    MethodOption,
    ProbesOption,
    RankOption,
    SolveIterationsOption,
    SolverOption,
    SolveSeedOption,
    SubsampleOption,
    ToleranceOption,
    WorkspaceOption,
    chosen_compute,
    live_progress,
    open_workspace,
)


def evaluate(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Accuracy on the held-out tasks, and how far the model is from stationary."""
    from core.actions.evaluate import evaluation

    run = evaluation(open_workspace(workspace), chosen_compute(device, dtype, chunk), live_progress())
    found = run.json("summary.json")
    accuracy, at = found["accuracy"], found["stationarity"]
    print(
        f"held-out accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}] "
        f"over {found['tasks']} tasks, gradient ratio {at['ratio']:.1e}",
        file=sys.stderr,
    )
    print(run.folder)


def rank_command(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    target: Annotated[str, typer.Option(help="all, held-out task ids with commas, or TASK/IMAGE.")] = "all",
    method: MethodOption = "task-if",
    gradient: GradientOption = "",
    evaluation: EvaluationOption = "",
    probes: ProbesOption = 0,
    inner: InnerOption = "",
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
    """Rank all training tasks, instances and images by influence: positive helps, negative harms."""
    from core.actions.rank import ranking
    from core.influence.methods import estimator
    from core.influence.targets import Target

    chosen = estimator(
        method,
        gradient=gradient,
        evaluation=evaluation,
        probes=probes,
        inner=inner,
        curvature=curvature,
        solver=solver,
        curvature_tasks=curvature_tasks,
        subsample=subsample,
        damping=damping,
        rank=rank,
        tolerance=tolerance,
        iterations=solve_iterations,
        seed=solve_seed,
    )
    run = ranking(
        open_workspace(workspace), Target.parse(target), chosen, chosen_compute(device, dtype, chunk), live_progress()
    )
    print(run.folder)
