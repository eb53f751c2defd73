"""The commands of what-if sets: ``tasklens sets ...``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.cli.changes import ImagesOption, RelabelOption, TasksOption, named_changes, print_changes
from core.cli.common import announce_device, live_progress, open_workspace
from core.cli.options import DEFAULT_WORKSPACE, ReviewerOption, WorkspaceOption, with_settings
from core.maml.settings import Compute
from core.runtime.progress import format_count

sets = typer.Typer(help="Save and compare named what-if sets.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="Name of the set.")]


@sets.command()
def save(
    name: NameArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    tasks: TasksOption = "",
    images: ImagesOption = "",
    relabel: RelabelOption = None,
    note: Annotated[str, typer.Option(help="Note, saved with the set.")] = "",
    reviewer: ReviewerOption = "command line",
) -> None:
    """Save the reviewers' decisions, or the changes that the options name, as a set; sets never change."""
    opened = open_workspace(workspace)
    changes = named_changes(tasks, images, relabel) or opened.changes()
    changes.apply(opened.project().tasks.train)  # raises if an item is not in the task list
    print(opened.sets.save(name, changes, who=reviewer, note=note).changes.words)


@sets.command("list")
def list_command(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """List all sets, oldest first: name, changes, reviewer, time, note."""
    opened = open_workspace(workspace)
    for name in opened.sets.names():
        named = opened.sets.get(name)
        print("\t".join((named.name, named.changes.words, named.who, named.at, named.note)))


@sets.command()
def show(name: NameArgument, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Print the items that a set removes and relabels, one per line."""
    print_changes(open_workspace(workspace).sets.get(name).changes)


@sets.command()
def delete(name: NameArgument, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Delete a set; results computed for it are kept."""
    open_workspace(workspace).sets.delete(name)


@sets.command()
@with_settings
def compare(
    *,
    names: Annotated[list[str] | None, typer.Argument(help="Names of the sets to compare. Default: all.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    compute: Compute,
) -> None:
    """Compare sets: estimates, and measurements where they were fine-tuned or retrained.

    The first call prepares the estimates, which takes longer.
    """
    from core.actions.preparation import prepare
    from core.actions.preparation import open_estimator
    from core.actions.whatif_sets import class_table
    from core.actions.whatif_sets import compare as compare_sets

    opened = open_workspace(workspace)
    announce_device(compute)
    if not opened.sets.names():
        print("There are no sets.")
        return
    prepare(opened, compute, live_progress())
    results = compare_sets(opened, open_estimator(opened, compute), compute, names or [])
    for result in results:
        _print_result(result)
    table = class_table(results)
    if len(table):
        print("\nestimated accuracy per class\n" + table.to_string(index=False, float_format="{:.3f}".format))


def _print_result(result: Any) -> None:
    print(f"{result.named.name}: {result.named.changes.words}")
    if result.fault is not None:
        print(f"  no estimate: {result.fault}")
    if (estimate := result.estimate) is not None:
        print(
            f"  estimate, not a measurement: accuracy {estimate.accuracy.mean:.3f}, "
            f"change {estimate.accuracy_change.text('+.3f')}; "
            f"{format_count(estimate.better, 'task')} better, {estimate.worse} worse; residual {estimate.residual:.0%}"
        )
    for method, measured in result.measurements.items():
        tasks = (
            ""
            if measured.better is None
            else f"; {format_count(measured.better, 'task')} better, {measured.worse} worse"
        )
        print(
            f"  measured by {method}: accuracy {measured.accuracy.text('.3f')}, "
            f"change {measured.accuracy_change.text('+.3f')}{tasks}"
        )
    if "retrain" not in result.measurements:
        print("  not measured until retrained")
