"""The command that imports images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli.options import (
    ChannelsOption,
    EncodingOption,
    FormatOption,
    InvertOption,
    RotationsOption,
    SizeOption,
    SplitsOption,
    command_line,
    live_progress,
    say,
)
from core.runtime.errors import UserError


def data(
    path: Annotated[
        Path | None,
        typer.Option(help="Folder, zip archive or manifest; with --download, where to put what is fetched."),
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the image set.")] = "",
    format: FormatOption = "auto",
    splits: SplitsOption = None,
    size: SizeOption = "",
    channels: ChannelsOption = 0,
    invert: InvertOption = False,
    rotations: RotationsOption = False,
    encoding: EncodingOption = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch it into --path first; --format says what.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Print the image sets that there are.")] = False,
) -> None:
    """Read images with labels, once, into an image set that tasks can be drawn from."""
    from core.actions.images import ImportOptions, add_images, known_images
    from core.data.download import download as fetch
    from core.data.store import damaged_image_sets

    if list_:
        for row in known_images():
            print("\t".join(row))
        for fault in damaged_image_sets():
            say(fault)
        return
    if path is None:
        raise UserError("There is no path of images.", "Use --path, or --list to see what there is.")
    progress = live_progress()
    if download:
        fetch(format, path, progress)
    wishes = ImportOptions(format, splits, size, channels, invert, rotations, encoding or "", skip_unreadable)
    stored = add_images(path, wishes, name=name, command=command_line(), progress=progress)
    for note in stored.story["notes"]:
        say(note)
    left_out = f"; {stored.unreadable:,} unreadable left out" if stored.unreadable else ""
    height, width, bands = stored.shape
    say(f"{stored.name}: {stored.count:,} images of {height} x {width} x {bands}, {stored.classes:,} classes{left_out}")
    print(stored.folder)
