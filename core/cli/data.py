"""The command that imports images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from core.actions.image_settings import ImportOptions
from core.cli.common import live_progress, message, this_command
from core.cli.options import with_settings
from core.runtime.errors import UserError


@with_settings
def data(
    *,
    path: Annotated[
        Path | None,
        Option(help="Folder, zip archive or manifest; with --download, the folder to download to."),
    ] = None,
    name: Annotated[str, Option(help="Name of the image set. Default: that of the files.")] = "",
    options: ImportOptions,
    download: Annotated[
        bool, Option("--download", help="Download the data set that --format names to --path first.")
    ] = False,
    list_: Annotated[bool, Option("--list", help="List the image sets and exit.")] = False,
) -> None:
    """Import labelled images as an image set.

    Prints the folder of the image set, which tasks can be drawn from.
    """
    from core.actions.images import add_images, known_images
    from core.data.download import download as download_data
    from core.data.store import damaged_image_sets

    if list_:
        for row in known_images():
            print("\t".join(row))
        for fault in damaged_image_sets():
            message(fault)
        return
    if path is None:
        raise UserError("--path is missing.", "Give --path, or --list to see the image sets.")
    progress = live_progress()
    if download:
        download_data(options.format, path, progress)
    stored = add_images(path, options, name=name, command=this_command(), progress=progress)
    for note in stored.story["notes"]:
        message(note)
    height, width, channels = stored.shape
    unreadable = f"; {stored.unreadable:,} unreadable left out" if stored.unreadable else ""
    message(
        f"{stored.name}: {stored.count:,} images of {height} x {width} x {channels}, {stored.classes:,} classes"
        f"{unreadable}"
    )
    print(stored.folder)
