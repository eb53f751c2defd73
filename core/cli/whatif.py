"""The commands that estimate changes at once."""

from __future__ import annotations

from typing import Annotated

import typer

from core.cli.changes import (
    ImagesOption,
    RelabelOption,
    TasksOption,
    estimate_words,
    named_changes,
    print_ends,
    print_whatif,
)
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
from core.runtime.errors import UserError


def whatif(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    tasks: TasksOption = "",
    images: ImagesOption = "",
    relabel: RelabelOption = None,
    target: Annotated[
        str, typer.Option(help="Score the training tasks for this target instead: all, task ids, or TASK/IMAGE.")
    ] = "",
    top: Annotated[int, typer.Option(min=1, help="Most harmful and most helpful tasks to print for a target.")] = 5,
    prepare: Annotated[bool, typer.Option("--prepare", help="Only do the long part, once, that answers need.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Estimate at once what changes would do, or which tasks matter for a target; the first time prepares for it."""
    from core.actions.preparation import prepare as prepare_action
    from core.actions.whatif import WhatIfEstimator
    from core.influence.targets import Target

    if target and (tasks or images or relabel):
        raise UserError("A target is scored, a set is tried.", "Give either --target, or what is to change.")
    opened, compute = open_workspace(workspace), chosen_compute(device, dtype, chunk)
    run = prepare_action(opened, compute, live_progress())
    if prepare:
        print(run.folder)
        return
    instant = WhatIfEstimator(opened, compute)
    if target:
        scored = instant.target(Target.parse(target))
        print(estimate_words(instant.report, scored.residual, scored.seconds))
        print_ends(scored.table, "task_id", top)
        return
    print_whatif(instant, named_changes(tasks, images, relabel) or opened.changes())


def why(
    target: Annotated[str, typer.Option(help="What fails: a held-out task, or one of its query images as TASK/IMAGE.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    top: Annotated[int, typer.Option(min=1, help="Most harmful and most helpful tasks and images to print.")] = 5,
    remove: Annotated[
        int, typer.Option(min=0, help="Estimate what removing this many of the most harmful images would do.")
    ] = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Why did this fail? The training tasks and images that harm and help a held-out task or image most."""
    from core.actions.preparation import prepare
    from core.actions.whatif import WhatIfEstimator
    from core.actions.why import worst
    from core.influence.targets import Target

    opened, compute, wanted = open_workspace(workspace), chosen_compute(device, dtype, chunk), Target.parse(target)
    prepare(opened, compute, live_progress())
    instant = WhatIfEstimator(opened, compute)
    tasks, images = instant.target(wanted), instant.images(wanted)
    print(estimate_words(instant.report, images.residual, tasks.seconds + images.seconds))
    print_ends(tasks.table, "task_id", top, "task")
    print_ends(images.table, "image_id", top, "image")
    if remove:
        print_whatif(instant, worst(images.table, "images", remove), wanted)
