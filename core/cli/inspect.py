"""The command that checks inputs and estimates costs before long work starts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.actions.image_settings import ImportOptions
from core.cli.common import announce_device, live_progress, open_workspace
from core.cli.model import backbone_fields
from core.cli.options import ExcludedFields, Fields, SelectedFields, with_settings
from core.maml.settings import Compute, ModelFields
from core.runtime.errors import UserError

if TYPE_CHECKING:
    from core.actions.inspect import Inspection

FOUND, FAULTS, COSTS = "found:", "does not fit:", "cost on this machine, measured on a few tasks:"
"""Headings of a report."""


@with_settings
def inspect_command(
    *,
    path: Annotated[Path | None, typer.Option(help="Images to import, as for the data command.")] = None,
    options: Annotated[ImportOptions, ExcludedFields("skip_unreadable")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint to import, as for the model command.")] = None,
    hints: Annotated[Fields, SelectedFields(ModelFields, "backbone")],
    tasks: Annotated[Path | None, typer.Option(help="Folder written by the tasks command.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder written by the train or model command; needs --tasks.")
    ] = None,
    workspace: Annotated[
        str, typer.Option("--workspace", "-w", help="Workspace whose tasks and model to inspect.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    compute: Compute,
) -> None:
    """Check inputs and estimate costs before long work starts.

    Reports what the inputs contain, what does not fit, and what the work would cost on this machine.
    """
    from core.actions.inspect import Inspection, inspect_checkpoint_file, inspect_problem
    from core.actions.inspect_images import inspect_images

    if workspace:
        folder = open_workspace(workspace).folder
        tasks, model = folder / "tasks", folder / "model"
    if not (path or checkpoint or tasks):
        raise UserError("There is nothing to inspect.", "Give --path, --checkpoint, --tasks or --workspace.")
    report = Inspection()
    if path:
        report += inspect_images(path, options)[0]
    if checkpoint:
        backbone = hints.get("backbone", "")
        if backbone:
            backbone_fields(backbone)  # allows a factory that is named here
        report += inspect_checkpoint_file(checkpoint, backbone, tasks)
    if tasks:
        report += inspect_problem(tasks, model, None, None, announce_device(compute), live_progress())
    print_report(report, as_json)


def print_report(report: Inspection, as_json: bool = False) -> None:
    """Print a report to stdout."""
    if as_json:
        from json import dumps

        print(dumps(asdict(report)))
        return
    print("\n".join([FOUND, *(f"  {line}" for line in report.found)]))
    if report.faults:
        print("\n".join([FAULTS, *(f"  {line}" for line in report.faults)]))
    if report.costs:
        print(COSTS)
    for cost in report.costs:
        print(f"  {cost.stage:<10} {cost.time:<26} {cost.gb:>5.1f} GB   {cost.how_much}")
