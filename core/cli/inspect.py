"""The command that checks inputs and predicts costs before anything long begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from core.cli.model import backbone_fields
from core.cli.options import (
    ChannelsOption,
    ChunkOption,
    DeviceOption,
    DtypeOption,
    EncodingOption,
    FormatOption,
    InvertOption,
    RotationsOption,
    SizeOption,
    SplitsOption,
    chosen_compute,
    live_progress,
    open_workspace,
)
from core.runtime.errors import UserError


def inspect_command(
    path: Annotated[
        Path | None, typer.Option(help="Images that are not imported yet, as the data command takes.")
    ] = None,
    format: FormatOption = "auto",
    splits: SplitsOption = None,
    size: SizeOption = "",
    channels: ChannelsOption = 0,
    invert: InvertOption = False,
    rotations: RotationsOption = False,
    encoding: EncodingOption = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint that is not imported yet.")] = None,
    backbone: Annotated[str, typer.Option(help="Of the checkpoint, as the model command takes it.")] = "",
    tasks: Annotated[Path | None, typer.Option(help="Folder made by the tasks command.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder made by the train or model command; needs --tasks.")
    ] = None,
    workspace: Annotated[str, typer.Option("--workspace", "-w", help="A workspace: its tasks and model.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Say what was found, what does not fit, and what the work would cost, before anything long is begun."""
    from core.actions.images import ImportOptions
    from core.actions.inspect import Report, inspect_checkpoint_file, inspect_images, inspect_problem

    if workspace:
        folder = open_workspace(workspace).folder
        tasks, model = folder / "tasks", folder / "model"
    if not (path or checkpoint or tasks):
        raise UserError("There is nothing to inspect.", "Use --path, --checkpoint, --tasks or --workspace.")
    report = Report()
    if path:
        wishes = ImportOptions(format, splits, size, channels, invert, rotations, encoding or "")
        report += inspect_images(path, wishes)[0]
    if checkpoint:
        if backbone:
            backbone_fields(backbone)  # a factory that is named here may be imported
        report += inspect_checkpoint_file(checkpoint, backbone, tasks)
    if tasks:
        report += inspect_problem(tasks, model, None, None, chosen_compute(device, dtype, chunk), live_progress())
    print_report(report, json)


def print_report(report: Any, as_json: bool = False) -> None:
    """A report on stdout."""
    if as_json:
        from dataclasses import asdict
        from json import dumps

        print(dumps(asdict(report)))
        return
    print("\n".join(["found:", *(f"  {line}" for line in report.found)]))
    if report.faults:
        print("\n".join(["does not fit:", *(f"  {line}" for line in report.faults)]))
    if report.costs:
        print("cost on this machine, measured on a few tasks:")
    for cost in report.costs:
        print(f"  {cost.stage:<10} {cost.time:<26} {cost.gb:>5.1f} GB   {cost.how_much}")
