"""Settings for the import of images, in a module without heavy imports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from core.runtime.errors import UserError
from core.runtime.settings import Setting, check_settings

if TYPE_CHECKING:
    from core.data.listing import TargetFormat
    from core.data.readers import ReadOptions

FORMATS = ("auto", "folder", "manifest", "omniglot", "mnist", "cifar-fs", "fc100", "mini-imagenet", "huggingface")
"""``auto`` and the names of :data:`core.data.readers.READERS`."""
FIT_NAMES = ("refuse", "crop", "pad", "resize")
"""The names of :data:`core.data.decode.FITS`."""
_LARGEST_SIDE = 2048
_LEVELS = re.compile(r"(\d{1,2})(?:-(\d{1,2}))?")


@dataclass(frozen=True)
class ImportOptions:
    """Options for reading images; empty text means that the value is detected or that of the format."""

    format: Annotated[str, Setting("Format of the images; see docs/data.md.", choices=FORMATS)] = "auto"
    splits: Annotated[
        Path | None,
        Setting(
            "Folder of lists of the classes in each split (train, val, test), if they are not next to the images.",
            label="Folder of split lists",
        ),
    ] = None
    class_level: Annotated[
        str,
        Setting(
            "Level of the folders that are the classes, counted from 1 below the splits; 1-2 joins two levels. "
            "Default: auto-detect."
        ),
    ] = ""
    table: Annotated[
        str,
        Setting(
            "Table with the labels in the folder or archive, or several separated by commas; none ignores all tables. "
            "Default: auto-detect.",
            label="Table of labels",
        ),
    ] = ""
    size: Annotated[str, Setting("Resize images to SIDE or HEIGHT,WIDTH. Default: the original size.")] = ""
    fit: Annotated[
        str,
        Setting(
            "What happens to images of another shape than the size: refuse them, crop around the centre, pad with "
            "background, or resize, which distorts. auto: as is usual for the format, otherwise refuse.",
            label="Other shapes",
            choices=("auto", *FIT_NAMES),
        ),
    ] = "auto"
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
        return TargetFormat(size, self.channels or None, self.invert, None if self.fit == "auto" else self.fit)

    @property
    def read_options(self) -> ReadOptions:
        """Return the options of the readers; raise UserError if the class level is invalid."""
        from core.data.readers import ReadOptions

        return ReadOptions(self.splits, self.encoding or None, self._class_levels(), self.table or None)

    def _class_levels(self) -> tuple[int, int] | None:
        if not self.class_level:
            return None
        match = _LEVELS.fullmatch(self.class_level.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            what = f"{self.class_level!r} is not a valid class level."
            raise UserError(what, "Use a number from 1, or the first and last level: 1-2.")
        return first, last
