"""People's own images: from the files they have to an image set that tasks can be drawn from."""

from __future__ import annotations

from pathlib import Path

from core.actions.image_settings import ImportOptions
from core.data.listing import Listing, with_rotations
from core.data.readers import ReadOptions, read_listing
from core.data.sources import SOURCES
from core.data.store import StoredImages, store_images, stored_image_sets
from core.runtime.progress import Progress


def listing_of(path: Path, wishes: ImportOptions) -> Listing:
    """What lies at ``path``, not decoded.

    Raises:
        UserError: it is nothing that can be read.
    """
    listing = read_listing(path, wishes.format, ReadOptions(splits=wishes.splits, encoding=wishes.encoding or None))
    return with_rotations(listing) if wishes.rotations else listing


def add_images(
    path: Path, wishes: ImportOptions, *, name: str = "", command: str = "", progress: Progress
) -> StoredImages:
    """Read the images at ``path`` into an image set, or find the one that they were read into before.

    Raises:
        UserError: they cannot be read; what was read until then is kept for the next attempt.
    """
    form = wishes.form
    progress.stage("looking at the files", 1)
    listing = listing_of(path, wishes)
    story = {"path": str(path), "command": command}
    return store_images(
        listing, name=name, form=form, skip_unreadable=wishes.skip_unreadable, story=story, progress=progress
    )


def known_images() -> list[tuple[str, ...]]:
    """Every image set there is: name, images, classes, folder."""
    own = ((one.name, f"{one.count} images", f"{one.classes} classes", str(one.folder)) for one in stored_image_sets())
    return [*((name, "built in") for name in SOURCES), *own]
