"""The command that draws tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli.common import message, this_command
from core.cli.options import with_settings
from core.runtime.errors import UserError
from core.tasks.settings import TaskSettings


@with_settings
def tasks(
    *,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    settings: TaskSettings,
    train_list: Annotated[
        Path | None, typer.Option(help="Your own training tasks instead of drawn ones; needs --heldout-list.")
    ] = None,
    heldout_list: Annotated[
        Path | None, typer.Option(help="Your own held-out tasks instead of drawn ones; needs --train-list.")
    ] = None,
) -> None:
    """Draw training and held-out tasks from an image set.

    Label noise can be injected into the training tasks. Instead of drawing, your own lists can be imported.
    """
    from core.tasks.generate import from_lists, generate, write_folder

    if (train_list is None) != (heldout_list is None):
        raise UserError("One of the two task lists is missing.", "Give both --train-list and --heldout-list.")
    if train_list and heldout_list:
        folder = from_lists(settings.data, train_list, heldout_list)
    else:
        folder = generate(settings)
    folder.description["command"] = this_command()
    write_folder(folder, out)
    message(f"{len(folder.train)} training and {len(folder.heldout)} held-out tasks")
    print(out)
