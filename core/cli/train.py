"""The command that trains a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli.common import accuracy_text, announce_device, live_progress, message, this_command
from core.cli.inspect import print_report
from core.cli.model import backbone_fields
from core.cli.options import Fields, SelectedFields, with_settings
from core.maml.settings import Compute, ModelFields, TrainSettings
from core.runtime.distributed import single_process

_FROM_TASKS = {"ways": 2}
"""Fields that the tasks determine; the value is a placeholder."""


@with_settings
def train(
    *,
    tasks: Annotated[Path, typer.Option(help="Folder written by the tasks command.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an interrupted training in it is resumed.")],
    model: Annotated[Fields, SelectedFields(ModelFields, "algorithm", "backbone", with_defaults=True)],
    network: Annotated[
        Fields, SelectedFields(ModelFields, "filters", "blocks", "pooling", "hidden", "shrink", "activation")
    ],
    adaptation: Annotated[
        Fields,
        SelectedFields(ModelFields, "steps", "rate", "proximity", "inner_tolerance", "delta", with_defaults=True),
    ],
    settings: TrainSettings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate the cost of training and of the work after it, and exit.")
    ] = False,
    compute: Compute,
) -> None:
    """Meta-train a MAML model.

    Reports its accuracy on the held-out tasks and how close it is to a stationary point.
    """
    from core.actions.train import train_model
    from core.checkpoints.model import check_unused_fields, spec_of

    network |= backbone_fields(model["backbone"])
    check_unused_fields(network["backbone"], network.keys())
    spec = spec_of(_FROM_TASKS | model | adaptation | network)
    if dry_run:
        from core.actions.inspect import inspect_problem

        with single_process():
            print_report(inspect_problem(tasks, None, spec, settings, announce_device(compute), live_progress()))
        return
    trained = train_model(tasks, out, spec, settings, announce_device(compute), live_progress(), this_command())
    report = trained.metadata["report"]
    stationarity = report["stationarity"]
    message(
        f"held-out accuracy {accuracy_text(report['heldout_accuracy'])}, "
        f"gradient norm {stationarity['gradient_norm']:.3g}, gradient ratio {stationarity['ratio']:.1e}"
    )
    print(out)
