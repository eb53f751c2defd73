"""The commands that remove items and export the cleaned data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli.changes import print_changes
from core.cli.common import find_ranking, open_workspace
from core.cli.options import (
    DEFAULT_WORKSPACE,
    RankingOption,
    ReasonOption,
    ReviewerOption,
    WorkspaceOption,
    metavar,
)
from core.editing.settings import BY


def remove(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    ranking: RankingOption = "newest",
    worst: Annotated[int, typer.Option(min=0, help="Remove this many of the most harmful items.")] = 0,
    by: Annotated[str, typer.Option(help="Items that --worst removes.", metavar=metavar(*BY))] = BY[0],
    task: Annotated[list[str] | None, typer.Option(help="Id of a task to remove. Repeatable.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="Id of an image to remove. Repeatable.")] = None,
    reason: ReasonOption = "",
    reviewer: ReviewerOption = "command line",
    undo: Annotated[bool, typer.Option("--undo", help="Undo this reviewer's last decision instead.")] = False,
) -> None:
    """Decide to remove tasks or images.

    Prints all changes that reviewers have decided.
    """
    from core.actions.decide import mark, worst_items

    opened = open_workspace(workspace)
    if undo:
        opened.decisions.undo(reviewer)
    else:
        items, source = [], ""
        if worst:
            run = find_ranking(opened, ranking)
            items, source = worst_items(run, by, worst), run.id
        mark(opened, items, tasks=task or [], images=image or [], reason=reason, reviewer=reviewer, source=source)
    print_changes(opened.changes())


def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[Path | None, typer.Option(help="Folder to write. Default: exports/ of the workspace.")] = None,
    formats: Annotated[
        str,
        typer.Option(
            help="Formats of the task list, separated by commas: parquet, csv, json, and learn2learn, torchmeta, "
            "easyfsl, which always leave out removed rows."
        ),
    ] = "parquet,csv,json",
    drop_rows: Annotated[
        bool, typer.Option("--drop-rows", help="Leave out removed rows instead of giving them weight 0.")
    ] = False,
    model: Annotated[str, typer.Option(help="Id of an edit run whose model to include.")] = "",
) -> None:
    """Export the cleaned tasks and an edited model.

    Also exports the removed items with reasons; prints the folder.
    """
    from core.actions.export import export as export_workspace

    opened = open_workspace(workspace)
    edited = opened.runs.get(model) if model else None
    folder = out or opened.folder / "exports" / "cleaned"
    print(export_workspace(opened, folder, formats=tuple(formats.split(",")), drop_rows=drop_rows, edited=edited))
