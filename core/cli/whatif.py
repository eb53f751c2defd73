"""The commands that estimate the effect of changes within a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.changes import (
    ImagesOption,
    RelabelOption,
    TasksOption,
    estimate_text,
    named_changes,
    print_extremes,
    print_whatif,
)
from core.cli.common import announce_device, live_progress, open_workspace
from core.cli.options import DEFAULT_WORKSPACE, WorkspaceOption, with_settings
from core.maml.settings import Compute
from core.runtime.errors import UserError

if TYPE_CHECKING:
    from core.influence.targets import Target
    from core.tasks.changes import Changes
    from core.workspace.workspace import Workspace


@with_settings
def whatif(
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    tasks: TasksOption = "",
    images: ImagesOption = "",
    relabel: RelabelOption = None,
    target: Annotated[
        str, typer.Option(help="Score the training tasks for this target instead: all, task ids, or TASK/IMAGE.")
    ] = "",
    top: Annotated[
        int, typer.Option(min=1, help="Number of most harmful and of most helpful tasks to print for a target.")
    ] = 5,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only compute what the estimates need, once per model, and exit.")
    ] = False,
    compute: Compute,
) -> None:
    """Estimate the effect of changes to the training data.

    With --target, print the tasks that matter most for it instead. The first call takes longer, to prepare.
    """
    from core.actions.preparation import prepare as prepare_estimates
    from core.actions.preparation import open_estimator
    from core.influence.targets import Target

    if target and (tasks or images or relabel):
        raise UserError("--target cannot be combined with changes.", "Give --target, or --tasks, --images, --relabel.")
    opened = open_workspace(workspace)
    wanted, changes = Target.parse(target) if target else None, named_changes(tasks, images, relabel)
    _check_known(opened, changes, wanted)
    announce_device(compute)
    run = prepare_estimates(opened, compute, live_progress())
    if prepare:
        print(run.folder)
        return
    estimator = open_estimator(opened, compute)
    if wanted is not None:
        scores = estimator.target(wanted)
        print(estimate_text(estimator.report, scores.residual, scores.seconds))
        print_extremes(scores.table, "task_id", top)
        return
    print_whatif(estimator, changes or opened.changes())


def _check_known(workspace: Workspace, changes: Changes | None, target: Target | None) -> None:
    """Raise UserError for an unknown id, before the preparation, which may take minutes."""
    project = workspace.project()
    if changes:
        changes.apply(project.tasks.train)
    if target is not None:
        target.weighted(project.tasks.heldout)


@with_settings
def why(
    *,
    target: Annotated[str, typer.Option(help="What fails: a held-out task, or one of its query images as TASK/IMAGE.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    top: Annotated[
        int, typer.Option(min=1, help="Number of most harmful and of most helpful tasks and images to print.")
    ] = 5,
    remove: Annotated[
        int, typer.Option(min=0, help="Estimate the effect of removing this many of the most harmful images.")
    ] = 0,
    compute: Compute,
) -> None:
    """Explain a failure by the training data behind it.

    Prints the training tasks and images that harm and help a held-out task or image most.
    """
    from core.actions.preparation import prepare
    from core.actions.preparation import open_estimator
    from core.actions.why import most_harmful
    from core.influence.targets import Target

    opened, wanted = open_workspace(workspace), Target.parse(target)
    _check_known(opened, None, wanted)
    announce_device(compute)
    prepare(opened, compute, live_progress())
    estimator = open_estimator(opened, compute)
    tasks, images = estimator.target(wanted), estimator.images(wanted)
    print(estimate_text(estimator.report, images.residual, tasks.seconds + images.seconds))
    print_extremes(tasks.table, "task_id", top, "task")
    print_extremes(images.table, "image_id", top, "image")
    if remove:
        print_whatif(estimator, most_harmful(images.table, "images", remove), wanted)
