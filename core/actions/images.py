"""People's own images: from the files they have to an image set that tasks can be drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.data.listing import Listing, TargetFormat, with_rotations
from core.data.readers import ReadOptions, read_listing
from core.data.sources import SOURCES
from core.data.store import StoredImages, store_images, stored_image_sets
from core.runtime.errors import UserError
from core.runtime.progress import Progress


@dataclass(frozen=True)
class ImportOptions:
    """How images are to be read, in the words of the command line.

    Attributes:
        format: One of :data:`core.data.readers.READERS`, or ``auto``.
        splits: Folder of split lists.
        size: ``SIDE``, ``HEIGHT,WIDTH`` or empty.
        channels: 1, 3, or 0 for what they are.
        rotations: Every class also turned, as further classes.
        encoding: Of a manifest; empty: UTF-8, or UTF-16 with its mark.
    """

    format: str = "auto"
    splits: Path | None = None
    size: str = ""
    channels: int = 0
    invert: bool = False
    rotations: bool = False
    encoding: str = ""
    skip_unreadable: bool = False

    @property
    def form(self) -> TargetFormat:
        """What the images are to be brought to.

        Raises:
            UserError: the size or the channels are none.
        """
        if self.channels not in (0, 1, 3):
            raise UserError(f"Images cannot have {self.channels} channels.", "Use 1 for grey or 3 for colour.")
        sides = [side.strip() for side in self.size.split(",")] if self.size else []
        if not all(side.isdecimal() and 0 < int(side) <= 2048 for side in sides) or len(sides) > 2:
            raise UserError(f"{self.size!r} is no size.", "Use one side, for example 84, or height and width: 84,64.")
        size = (int(sides[0]), int(sides[-1])) if sides else None
        return TargetFormat(size, self.channels or None, self.invert)


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
