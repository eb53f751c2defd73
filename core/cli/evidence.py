"""The command that compares rankings with retraining."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from core.cli.options import (
    DEFAULT_WORKSPACE,
    ChunkOption,
    DeviceOption,
    DtypeOption,
    WorkspaceOption,
    chosen_compute,
    live_progress,
    open_workspace,
)


def evidence(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    methods: Annotated[
        str, typer.Option(help="Methods to rate, with commas; all of them: --methods all. See docs/method.md.")
    ] = "",
    truth: Annotated[str, typer.Option(help="half: random halves of the tasks (LDS). one: all but one task.")] = "half",
    subsets: Annotated[int, typer.Option(help="Retrained subsets.")] = 20,
    seeds: Annotated[int, typer.Option(help="Retrainings of each subset; 2 or more to know the ceiling.")] = 2,
    retrain: Annotated[str, typer.Option(help="fresh: as the model was. warm: from the present model.")] = "fresh",
    iterations: Annotated[int, typer.Option(help="Adam steps of a retraining; 0 means as the model was trained.")] = 0,
    targets: Annotated[int, typer.Option(help="Held-out tasks that are targets; 0 means all.")] = 20,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Hold rankings against retraining: how well does each method foretell the loss of models trained on other tasks?

    An interrupted run goes on where it was; retrained models are shared by all methods and by later runs.
    """
    from core.actions.evidence import EvidenceSettings
    from core.actions.evidence import evidence as evidence_action
    from core.evidence.methods import ALL_METHODS, DEFAULT_METHODS

    names = tuple(ALL_METHODS) if methods == "all" else tuple(methods.split(",")) if methods else DEFAULT_METHODS
    settings = EvidenceSettings(names, truth, subsets, seeds, retrain, iterations, targets)
    run = evidence_action(open_workspace(workspace), settings, chosen_compute(device, dtype, chunk), live_progress())
    shown = run.table("methods.parquet").drop(columns=["words", "note", "kind"])
    print(shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"), file=sys.stderr)
    print(run.folder)
