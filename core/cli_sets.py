"""The commands of what-if sets: ``python -m core sets ...``."""

from __future__ import annotations

from typing import Annotated

import typer

from core.cli_shared import (
    DEFAULT_WORKSPACE,
    ChunkOption,
    DeviceOption,
    DtypeOption,
    WorkspaceOption,
    chosen_compute,
    live_progress,
    open_workspace,
)
from core.cli_whatif import ImagesOption, RelabelOption, TasksOption, named_changes, print_changes

sets = typer.Typer(help="Named what-if sets, side by side.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="Name of the set.")]


@sets.command()
def save(
    name: NameArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    tasks: TasksOption = "",
    images: ImagesOption = "",
    relabel: RelabelOption = None,
    note: Annotated[str, typer.Option(help="Kept with the set.")] = "",
    reviewer: Annotated[str, typer.Option(help="Kept with the set.")] = "command line",
) -> None:
    """Keep what reviewers decided, or what the options name, under a name; a set never changes."""
    opened = open_workspace(workspace)
    changes = named_changes(tasks, images, relabel) or opened.changes()
    changes.applied(opened.project().tasks.train)  # refuses what is not in the task list
    print(opened.sets.save(name, changes, who=reviewer, note=note).changes.words)


@sets.command("list")
def list_command(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """All sets, oldest first: name, what changes, who, when, note."""
    opened = open_workspace(workspace)
    for name in opened.sets.names():
        one = opened.sets.get(name)
        print("\t".join((one.name, one.changes.words, one.who, one.at, one.note)))


@sets.command()
def show(name: NameArgument, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """What a set removes and relabels, one item a line."""
    print_changes(open_workspace(workspace).sets.get(name).changes)


@sets.command()
def delete(name: NameArgument, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Forget a set; what was computed for it stays."""
    open_workspace(workspace).sets.delete(name)


@sets.command()
def compare(
    names: Annotated[list[str] | None, typer.Argument(help="Names of sets; all, if none is given.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Sets side by side: estimates, and measurements of those that were fine-tuned or retrained; the first time
    prepares for the estimates.
    """
    from core.actions.preparation import prepare
    from core.actions.whatif import open_estimator
    from core.actions.whatif_sets import class_table
    from core.actions.whatif_sets import compare as compare_action

    opened, compute = open_workspace(workspace), chosen_compute(device, dtype, chunk)
    if not opened.sets.names():
        print("There is no set yet.")
        return
    prepare(opened, compute, live_progress())
    found = compare_action(opened, open_estimator(opened, compute), compute, names or [])
    for one in found:
        print(f"{one.named.name}: {one.named.changes.words}")
        if one.fault is not None:
            print(f"  no estimate: {one.fault}")
        if (guess := one.estimate) is not None:
            at, change = guess.accuracy, guess.accuracy_change
            print(
                f"  estimate, not a measurement: accuracy {at.mean:.3f}, "
                f"change {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]; "
                f"{guess.better} tasks better, {guess.worse} worse; residual {guess.residual:.0%}"
            )
        for way, measured in one.measurements.items():
            at, change = measured.accuracy, measured.accuracy_change
            tasks = "" if measured.better is None else f"; {measured.better} tasks better, {measured.worse} worse"
            print(
                f"  measured by {way}: accuracy {at.mean:.3f} [{at.low:.3f}, {at.high:.3f}], "
                f"change {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]{tasks}"
            )
        if "retrain" not in one.measurements:
            print("  not measured until retrained")
    table = class_table(found)
    if len(table):
        print("\nestimated accuracy a class\n" + table.to_string(index=False, float_format="{:.3f}".format))
