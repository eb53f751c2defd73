"""The command that draws tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.cli.options import command_line
from core.runtime.errors import UserError


def tasks(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    data: Annotated[str, typer.Option(help="Image set: mnist5k, or the name or folder of one of yours.")] = "mnist5k",
    ways: Annotated[int, typer.Option(help="Classes a task.")] = 5,
    shots: Annotated[int, typer.Option(help="Support images a class.")] = 5,
    queries: Annotated[int, typer.Option(help="Query images a class.")] = 10,
    count: Annotated[int, typer.Option(min=0, help="Training tasks; 0 means every combination of classes once.")] = 0,
    heldout: Annotated[int, typer.Option(min=1, help="Held-out tasks.")] = 100,
    split: Annotated[
        str,
        typer.Option(
            help="official: the split that the images come with. images: hold out images of every class. "
            "classes: hold out whole classes. auto: official where there is one, else images."
        ),
    ] = "auto",
    heldout_split: Annotated[
        str, typer.Option(help="Part of the official split that held-out tasks are drawn from: test or val.")
    ] = "test",
    heldout_share: Annotated[float, typer.Option(help="Share of the images or classes held out.")] = 0.3,
    noise: Annotated[
        str,
        typer.Option(
            help="Labels to spoil in the training tasks: none, tasks:SHARE:LABELS, images:SHARE, lookalike:SHARE, "
            "or easy, hard, image, confusion. What was spoilt is recorded in planted.parquet."
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Same seed, same tasks.")] = 0,
    skip_small_classes: Annotated[
        bool, typer.Option("--skip-small-classes", help="Leave out classes with fewer images than a task takes.")
    ] = False,
    train_list: Annotated[
        Path | None, typer.Option(help="Your own training tasks instead of drawn ones; needs --heldout-list.")
    ] = None,
    heldout_list: Annotated[Path | None, typer.Option(help="Your own held-out tasks.")] = None,
) -> None:
    """Draw training and held-out tasks from an image set, with planted noise if wanted, or take your own lists."""
    from core.tasks.generate import TaskSettings, from_lists, generate, write_folder

    if (train_list is None) != (heldout_list is None):
        raise UserError("One list single_process is not enough.", "Give both --train-list and --heldout-list.")
    if train_list and heldout_list:
        made = from_lists(data, train_list, heldout_list)
    else:
        made = generate(
            TaskSettings(
                data,
                ways,
                shots,
                queries,
                count or None,
                heldout,
                split,
                heldout_split,
                heldout_share,
                noise,
                seed,
                skip_small_classes,
            )
        )
    made.description["command"] = command_line()
    write_folder(made, out)
    print(f"{len(made.train)} training and {len(made.heldout)} held-out tasks", file=sys.stderr)
    print(out)
