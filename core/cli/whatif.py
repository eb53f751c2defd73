"""The commands that estimate the effect of changes within a second, and keep named sets of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from core.cli.common import announce_device, live_progress, open_workspace, print_changes
from core.cli.options import DEFAULT_WORKSPACE, REVIEWER, ReviewerOption, WorkspaceOption, with_settings
from core.cli.streams import print_row
from core.maml.settings import Compute
from core.runtime.errors import UserError
from core.runtime.progress import format_count

if TYPE_CHECKING:
    import pandas as pd

    from core.actions.whatif_sets import SetComparison
    from core.editing.whatif import WhatIfEstimator
    from core.influence.targets import Target
    from core.tasks.changes import Changes

NET_EFFECT = "net effect"
TasksOption = Annotated[
    str, Option(help="Ids of tasks to remove, separated by commas, instead of the reviewers' decisions.")
]
ImagesOption = Annotated[
    str, Option(help="Ids of images to remove, separated by commas, instead of the reviewers' decisions.")
]
RelabelOption = Annotated[
    list[str] | None, Option(help="IMAGE=CLASS: an image to relabel, instead of the reviewers' decisions. Repeatable.")
]


@with_settings
def whatif(
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    tasks: TasksOption = "",
    images: ImagesOption = "",
    relabel: RelabelOption = None,
    target: Annotated[
        str, Option(help="Score the training tasks for this target instead: all, task ids, or TASK/IMAGE.")
    ] = "",
    top: Annotated[
        int, Option(min=1, help="Number of most harmful and of most helpful tasks to print for a target.")
    ] = 5,
    prepare: Annotated[
        bool, Option("--prepare", help="Only compute what the estimates need, once per model, and exit.")
    ] = False,
    compute: Compute,
) -> None:
    """Estimate the effect of changes to the training data.

    With --target, print the tasks that matter most for it instead. The first call takes longer, to prepare.
    """
    from core.actions.preparation import open_estimator
    from core.actions.preparation import prepare as prepare_estimates
    from core.influence.targets import Target

    if target and (tasks or images or relabel):
        raise UserError("--target cannot be combined with changes.", "Give --target, or --tasks, --images, --relabel.")
    opened = open_workspace(workspace)
    wanted, changes = Target.parse(target) if target else None, _named_changes(tasks, images, relabel)
    project = opened.project()  # unknown ids are refused before the preparation, which may take minutes
    if changes:
        changes.apply(project.tasks.train)
    if wanted is not None:
        wanted.weighted(project.tasks.heldout)
    announce_device(compute)
    run = prepare_estimates(opened, compute, live_progress())
    if prepare:
        print(run.folder)
        return
    estimator = open_estimator(opened, compute)
    if wanted is not None:
        scores = estimator.target(wanted)
        print(_estimate_text(estimator.report, scores.residual, scores.seconds))
        _print_extremes(scores.table, "task_id", top)
        return
    _print_whatif(estimator, changes or opened.changes())


@with_settings
def why(
    *,
    target: Annotated[str, Option(help="What fails: a held-out task, or one of its query images as TASK/IMAGE.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    top: Annotated[
        int, Option(min=1, help="Number of most harmful and of most helpful tasks and images to print.")
    ] = 5,
    remove: Annotated[
        int, Option(min=0, help="Estimate the effect of removing this many of the most harmful images.")
    ] = 0,
    compute: Compute,
) -> None:
    """Explain a failure by the training data behind it.

    Prints the training tasks and images that harm and help a held-out task or image most.
    """
    from core.actions.evaluate import most_harmful
    from core.actions.preparation import open_estimator, prepare
    from core.influence.targets import Target

    opened, wanted = open_workspace(workspace), Target.parse(target)
    wanted.weighted(opened.project().tasks.heldout)  # refuses an unknown target before the preparation
    announce_device(compute)
    prepare(opened, compute, live_progress())
    estimator = open_estimator(opened, compute)
    tasks, images = estimator.target(wanted), estimator.images(wanted)
    print(_estimate_text(estimator.report, images.residual, tasks.seconds + images.seconds))
    _print_extremes(tasks.table, "task_id", top, "task")
    _print_extremes(images.table, "image_id", top, "image")
    if remove:
        _print_whatif(estimator, most_harmful(images.table, "images", remove), wanted)


def _named_changes(tasks: str, images: str, relabel: list[str] | None) -> Changes:
    """Return the changes that the three options name."""
    from core.tasks.changes import Changes

    task_ids, image_ids = ([name for name in text.split(",") if name] for text in (tasks, images))
    return Changes.named(task_ids, image_ids, relabel or [])


def _estimate_text(report: dict[str, Any], residual: float, seconds: float) -> str:
    """Return the line that marks what follows as an estimate."""
    basis = f"estimate by a basis of rank {report['rank']}, not a measurement"
    return f"{basis}; residual {residual:.0%}, {1000 * seconds:.0f} ms"


def _print_extremes(table: pd.DataFrame, column: str, top: int, kind: str = "") -> None:
    """Print the most harmful and the most helpful items of a table that has the most harmful first."""
    for effect, part in (("harmful", table.head(top)), ("helpful", table.tail(top)[::-1])):
        for name, score in zip(part[column], part["score"], strict=True):
            print_row(*filter(None, (effect, kind, name, f"{score:+.3g}")))


def _print_whatif(estimator: WhatIfEstimator, changes: Changes, target: Target | None = None) -> None:
    """Print the estimated effect of changes on the held-out tasks, and on one target."""
    result = estimator.changes(changes, target)
    print(_estimate_text(estimator.report, result.residual, result.seconds))
    print(f"with {changes.words}: held-out accuracy {result.accuracy.text('.3f')}")
    print(f"change of accuracy {result.accuracy_change.text('+.3f')}")
    print(f"change of loss {result.loss_change.text('+.4f')}")
    print(f"change of loss to first order {result.predicted_loss_change:+.4f}")
    if (effect := result.target) is not None:
        print(
            f"loss of {target}: {effect.loss:.4f}, then {effect.loss_after:.4f} "
            f"({effect.loss_predicted:.4f} to first order)"
        )
        if effect.probability is not None:
            print(
                f"probability of its class: {effect.probability:.1%}, then {effect.probability_after:.1%} "
                f"({effect.probability_predicted:.1%} to first order)"
            )


sets = Typer(help="Save and compare named what-if sets.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, Argument(help="Name of the set.")]


@sets.command()
def save(
    name: NameArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    tasks: TasksOption = "",
    images: ImagesOption = "",
    relabel: RelabelOption = None,
    note: Annotated[str, Option(help="Note, saved with the set.")] = "",
    reviewer: ReviewerOption = REVIEWER,
) -> None:
    """Save the decided changes, or those that are named, as a set.

    Saves the reviewers' decisions unless options name changes. Sets never change.
    """
    opened = open_workspace(workspace)
    changes = _named_changes(tasks, images, relabel) or opened.changes()
    changes.apply(opened.project().tasks.train)  # raises if an item is not in the task list
    print(opened.sets.save(name, changes, who=reviewer, note=note).changes.words)


@sets.command("list")
def list_command(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """List all sets, oldest first: name, changes, reviewer, time, note."""
    opened = open_workspace(workspace)
    for name in opened.sets.names():
        named = opened.sets.get(name)
        print_row(named.name, named.changes.words, named.who, named.at, named.note)


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
    names: Annotated[list[str] | None, Argument(help="Names of the sets to compare. Default: all.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    compute: Compute,
) -> None:
    """Compare the estimated and the measured effects of sets.

    Effects are measured where a set was fine-tuned or retrained. The first call prepares the estimates, which takes
    longer.
    """
    from core.actions.preparation import open_estimator, prepare
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


def _print_result(result: SetComparison) -> None:
    from core.editing.net_effect import NO_CONTROL

    print(f"{result.named.name}: {result.named.changes.words}")
    if result.fault is not None:
        print(f"  no estimate: {result.fault}")
    if (estimate := result.estimate) is not None:
        print(
            f"  estimate, not a measurement: accuracy {estimate.accuracy.mean:.3f}, "
            f"change {estimate.accuracy_change.text('+.3f')}; "
            f"{format_count(estimate.better, 'task')} better, {estimate.worse} worse; residual {estimate.residual:.0%}"
        )
    for method, one in result.measurements.items():
        tasks = "" if one.better is None else f"; {format_count(one.better, 'task')} better, {one.worse} worse"
        effect = NO_CONTROL if one.net_effect is None else one.net_effect.text("+.3f")
        print(f"  {NET_EFFECT} of the changes, measured by {method}: {effect}")
        change = f"change from the unedited model {one.accuracy_change.text('+.3f')}"
        print(f"  measured by {method}: accuracy {one.accuracy.text('.3f')}, {change}{tasks}")
    if "retrain" not in result.measurements:
        print("  not measured until retrained")
