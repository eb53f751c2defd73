"""The commands that edit a model and measure removal curves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.changes import workspace_changes
from core.cli.common import (
    accuracy_text,
    announce_device,
    change_text,
    find_ranking,
    live_progress,
    message,
    open_workspace,
)
from core.cli.options import DEFAULT_WORKSPACE, Fields, RankingOption, SelectedFields, WorkspaceOption, with_settings
from core.editing.settings import CurveSettings, EditSettings, FinetuneSettings, NewtonSettings
from core.influence.settings import SolveSettings
from core.maml.settings import Compute
from core.runtime.distributed import world

if TYPE_CHECKING:
    from core.workspace.runs import Run


@with_settings
def edit(
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    named_set: Annotated[
        str, typer.Option("--set", help="Name of a what-if set to apply, instead of the reviewers' decisions.")
    ] = "",
    settings: EditSettings,
    finetune: FinetuneSettings,
    newton: NewtonSettings,
    solve: Annotated[Fields, SelectedFields(SolveSettings)],
    compute: Compute,
) -> None:
    """Edit the model for removed and relabelled data.

    Each edited model is measured on the held-out tasks. The options of the solve are those of linear; their defaults
    are in docs/method.md.
    """
    from core.actions.edit import edit as edit_model
    from core.editing.methods import SOLVE

    opened = open_workspace(workspace)
    changes, progress = world().on_rank_zero(lambda: workspace_changes(opened, named_set)), live_progress()
    announce_device(compute)
    for method in settings.methods:
        run = edit_model(
            opened,
            method,
            changes,
            solver=replace(SOLVE, **solve),
            finetune=finetune.training,
            newton=newton,
            budget=settings.budget,
            rewind=settings.rewind,
            compute=compute,
            progress=progress,
        )
        message(f"{method}: {_summary(run)}")
        print(run.folder)


def _summary(run: Run) -> str:
    """Return the accuracy, its change and the cost of an edit; edits of earlier versions have no cost."""
    from core.editing.steps import start_text

    figures: dict[str, Any] = run.json("edit.json")
    parts = [
        f"held-out accuracy {accuracy_text(figures['accuracy'])}",
        f"change {change_text(figures['accuracy_change'])}",
    ]
    if "cost" in figures:
        share = figures["cost"]["share_of_retraining"]
        of_retraining = "" if share is None else f" ({share:.1%} of retraining)"
        parts.append(f"cost {figures['cost']['meta_gradients']:,.0f} meta-gradients{of_retraining}")
    if start := start_text(figures):
        parts.append(f"started at {start}")
    return ", ".join(parts)


@with_settings
def curve(
    *,
    ranking: RankingOption = "newest",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    settings: CurveSettings,
    finetune: FinetuneSettings,
    compute: Compute,
) -> None:
    """Measure accuracy against the share of data removed.

    Data are removed most harmful first, highest loss first, and at random.
    """
    from core.actions.curve import curve as measure_curve

    opened = open_workspace(workspace)
    run = measure_curve(
        opened,
        find_ranking(opened, ranking),
        settings,
        finetune.training,
        announce_device(compute),
        live_progress(),
    )
    print(run.folder)
