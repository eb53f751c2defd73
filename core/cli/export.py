"""The commands that mark items for removal and export the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli.changes import print_changes
from core.cli.options import DEFAULT_WORKSPACE, WorkspaceOption, chosen_ranking, open_workspace


def remove(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    ranking: Annotated[str, typer.Option(help="Id of a rank run, or newest.")] = "newest",
    worst: Annotated[int, typer.Option(min=0, help="Mark this many of the most harmful.")] = 0,
    by: Annotated[str, typer.Option(help="tasks or images.")] = "tasks",
    task: Annotated[list[str] | None, typer.Option(help="Id of a task to mark.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="Id of an image to mark.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the decision.")] = "",
    reviewer: Annotated[str, typer.Option(help="Kept with the decision.")] = "command line",
    undo: Annotated[bool, typer.Option("--undo", help="Take back this reviewer's last marking instead.")] = False,
) -> None:
    """Mark tasks or images for removal, or take the last marking back; prints what is marked now."""
    from core.actions.decide import mark, worst_items

    opened = open_workspace(workspace)
    if undo:
        opened.decisions.undo(reviewer)
    else:
        items, source = [], ""
        if worst:
            ranked = chosen_ranking(opened, ranking)
            items, source = worst_items(ranked, by, worst), ranked.id
        mark(opened, items, tasks=task or [], images=image or [], reason=reason, reviewer=reviewer, source=source)
    print_changes(opened.changes())


def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: exports/ of the workspace.")] = None,
    formats: Annotated[
        str,
        typer.Option(
            help="Of the task list, with commas: parquet, csv, json, and learn2learn, torchmeta, easyfsl, "
            "which never hold removed rows."
        ),
    ] = "parquet,csv,json",
    drop_rows: Annotated[
        bool, typer.Option("--drop-rows", help="Take removed rows out instead of giving them weight 0.")
    ] = False,
    model: Annotated[str, typer.Option(help="Id of an edit run whose model goes along.")] = "",
) -> None:
    """Write the cleaned task list, the removed items with reasons, and an edited model."""
    from core.actions.export import export as export_action

    opened = open_workspace(workspace)
    edited = opened.runs.get(model) if model else None
    folder = out or opened.folder / "exports" / "cleaned"
    print(export_action(opened, folder, formats=tuple(formats.split(",")), drop_rows=drop_rows, edited=edited))
