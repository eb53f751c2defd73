"""Settings for the import of images, in a module without heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from core.runtime.errors import UserError
from core.runtime.settings import Setting, check_settings

if TYPE_CHECKING:
    from core.data.listing import TargetFormat

FORMATS = ("auto", "folder", "manifest", "omniglot", "mnist", "cifar-fs", "fc100", "mini-imagenet", "huggingface")
"""``auto`` and the names of :data:`core.data.readers.READERS`."""
_LARGEST_SIDE = 2048


@dataclass(frozen=True)
class ImportOptions:
    """Options for reading images; an empty ``encoding`` means UTF-8, or UTF-16 with its byte order mark."""

    format: Annotated[str, Setting("Format of the images; see docs/data.md.", choices=FORMATS)] = "auto"
    splits: Annotated[
        Path | None,
        Setting(
            "Folder of split lists (train, val, test), if they are not next to the images.",
            label="Folder of split lists",
        ),
    ] = None
    size: Annotated[str, Setting("Resize images to SIDE or HEIGHT,WIDTH. Default: the original size.")] = ""
    channels: Annotated[
        int, Setting("Colour channels: 1 for greyscale, 3 for colour, 0 to keep them.", choices=(0, 1, 3))
    ] = 0
    invert: Annotated[bool, Setting("Invert the images: dark on bright becomes bright on dark.")] = False
    rotations: Annotated[
        bool,
        Setting("Add every class rotated by 90, 180 and 270 degrees as further classes.", label="Add rotated classes"),
    ] = False
    encoding: Annotated[
        str, Setting("Text encoding of a manifest that is not UTF-8, for example latin-1.", label="Manifest encoding")
    ] = ""
    skip_unreadable: Annotated[
        bool, Setting("Leave out images that cannot be read.", label="Leave out unreadable images")
    ] = False

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def target_format(self) -> TargetFormat:
        """Return the format to which the images are converted; raise UserError if the size is invalid."""
        from core.data.listing import TargetFormat

        sides = [side.strip() for side in self.size.split(",")] if self.size else []
        if not all(side.isdecimal() and 0 < int(side) <= _LARGEST_SIDE for side in sides) or len(sides) > 2:
            raise UserError(
                f"{self.size!r} is not a valid size.", "Use one side, for example 84, or height and width: 84,64."
            )
        size = (int(sides[0]), int(sides[-1])) if sides else None
        return TargetFormat(size, self.channels or None, self.invert)
