"""The command that trains a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.cli.inspect import print_report
from core.cli.model import backbone_fields
from core.cli.options import (
    BackboneOption,
    ChunkOption,
    DeviceOption,
    DtypeOption,
    chosen_compute,
    command_line,
    live_progress,
)
from core.runtime.distributed import single_process
from core.runtime.errors import UserError


def train(
    tasks: Annotated[Path, typer.Option(help="Folder made by the tasks command.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an interrupted training there goes on.")],
    algorithm: Annotated[
        str, typer.Option(help="maml, fomaml, anil, meta-sgd, or imaml (proximal inner problem, solved).")
    ] = "maml",
    backbone: BackboneOption = "convnet",
    filters: Annotated[
        int | None, typer.Option(help="Channels of every block; 16, or 64 for the networks of learn2learn.")
    ] = None,
    pooling: Annotated[
        str, typer.Option(help="Of convnet: stride or max; of cnn4: max or stride; of resnet12: mean or none.")
    ] = "",
    hidden: Annotated[
        str, typer.Option(help="Widths of mlp (64; none for a linear model), omniglot-fc or resnet12, with commas.")
    ] = "",
    shrink: Annotated[
        int | None, typer.Option(min=1, help="The mlp sees images averaged over squares of this side.")
    ] = None,
    activation: Annotated[
        str,
        typer.Option(help="Of convnet and mlp: gelu (default), tanh or the literature's relu (never stationary)."),
    ] = "",
    inner_steps: Annotated[int, typer.Option(min=1, help="Gradient steps of the adaptation.")] = 1,
    inner_rate: Annotated[float, typer.Option(help="Learning rate of the adaptation.")] = 0.4,
    proximity: Annotated[float, typer.Option(help="Of imaml: the weight of its proximal term.")] = 1.0,
    inner_tolerance: Annotated[float, typer.Option(help="Of imaml: to which the inner problem is solved.")] = 1e-5,
    delta: Annotated[float, typer.Option(help="Weight decay of the objective, which is a sum over tasks.")] = 0.1,
    iterations: Annotated[int, typer.Option(min=0, help="Adam steps.")] = 1200,
    meta_batch: Annotated[int, typer.Option(min=1, help="Tasks an Adam step.")] = 12,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, falling to 0 along a cosine.")] = 3e-3,
    polish: Annotated[int, typer.Option(min=0, help="Most full-batch L-BFGS iterations after that.")] = 0,
    tolerance: Annotated[float, typer.Option(help="Gradient ratio at which the polish stops.")] = 1e-4,
    seed: Annotated[int, typer.Option(help="Of initial parameters and task order.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what training and the work after it would cost, and stop.")
    ] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Meta-train a MAML model and say how far from stationary it ended."""
    from core.actions.train import train_model
    from core.checkpoints.model import check_unused_fields, spec_of
    from core.maml.training import TrainSettings

    try:
        widths = () if hidden == "none" else tuple(int(width) for width in hidden.split(",") if hidden)
    except ValueError as error:
        raise UserError(f"The widths {hidden!r} are not whole numbers.", "For example 64,64, or none.") from error
    given = {
        "filters": filters,
        "pooling": pooling or None,
        "hidden": widths if hidden else None,
        "shrink": shrink,
        "activation": activation or None,
    }
    network = {name: value for name, value in given.items() if value is not None} | backbone_fields(backbone)
    check_unused_fields(network["backbone"], network.keys())
    wanted = {
        "ways": 2,  # like the size of the images, this comes from the tasks
        "algorithm": algorithm,
        "delta": delta,
        "steps": inner_steps,
        "rate": inner_rate,
        "proximity": proximity,
        "inner_tolerance": inner_tolerance,
    }
    spec = spec_of(wanted | network)
    settings = TrainSettings(iterations, meta_batch, learning_rate, polish, tolerance, seed)
    if dry_run:
        from core.actions.inspect import inspect_problem

        with single_process():
            print_report(
                inspect_problem(tasks, None, spec, settings, chosen_compute(device, dtype, chunk), live_progress())
            )
        return
    model = train_model(
        tasks, out, spec, settings, chosen_compute(device, dtype, chunk), live_progress(), command_line()
    )
    report = model.story["report"]
    accuracy, at = report["heldout_accuracy"], report["stationarity"]
    print(
        f"held-out accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], "
        f"gradient norm {at['gradient_norm']:.3g}, gradient ratio {at['ratio']:.1e}",
        file=sys.stderr,
    )
    print(out)
