"""Import a user's images into an image set from which tasks can be sampled."""

from __future__ import annotations

from pathlib import Path

from core.actions.image_settings import ImportOptions
from core.data import SOURCES
from core.data.description import describe_listing
from core.data.listing import Listing, with_rotations
from core.data.readers import read_listing
from core.data.store import StoredImages, store_images, stored_image_sets
from core.runtime.progress import Progress


def listing_of(path: Path, options: ImportOptions) -> Listing:
    """Return a listing of the images at ``path``, not decoded; raise UserError if nothing there can be read."""
    listing = read_listing(path, options.format, options.read_options)
    return with_rotations(listing) if options.rotations else listing


def add_images(
    path: Path, options: ImportOptions, *, name: str = "", command: str = "", progress: Progress
) -> StoredImages:
    """Read the images at ``path`` into an image set, or find the set from an earlier import of the same images.

    Raises:
        UserError: the images cannot be read; what was read so far is stored for the next attempt.
    """
    form = options.target_format
    progress.stage("listing files", 1)
    listing = listing_of(path, options)
    story = {"path": str(path), "command": command, "description": describe_listing(listing)}
    skip = options.skip_unreadable
    return store_images(listing, name=name, form=form, skip_unreadable=skip, story=story, progress=progress)


def known_images() -> list[tuple[str, ...]]:
    """Return every image set as (name, images, classes, folder)."""
    stored = stored_image_sets()
    rows = [
        (", ".join(one.names[::-1]), f"{one.count} images", f"{one.classes} classes", str(one.folder)) for one in stored
    ]
    return [*((name, "built in") for name in SOURCES), *rows]
