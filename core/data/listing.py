"""Describe the images that a reader finds, before any image is decoded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from core.data.decode import Raw
from core.runtime.errors import UserError

SPLITS = ("train", "val", "test")
MAX_CHARACTERS = 1000
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and what UTF-8 cannot encode


@dataclass(frozen=True)
class TargetFormat:
    """A pixel format that images are converted to.

    Attributes:
        size: Height and width; None keeps the size of the images, which must then be equal.
        channels: 1 (grey) or 3 (colour); None: grey if all images are.
        invert: Invert dark-on-bright images to bright-on-dark: TaskLens expects a bright foreground.
        fit: What to do with images of another shape, one of :data:`core.data.decode.FITS`; None: refuse them.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    invert: bool = False
    fit: str | None = None


@dataclass(frozen=True, eq=False)
class Listing:
    """A list of images with their names and classes, and a function that reads each.

    Attributes:
        name: Default name of the image set.
        table: One row per image, in the order of the image set; text columns id (unique), class, split (``train``,
            ``val``, ``test``; ``""``: none) and group (``""``: none), and turn (counter-clockwise quarter turns). If
            the images are in class folders, also position (:attr:`core.data.images.ImageSet.positions`).
        read: Returns the encoded bytes, or the pixels, of the image in the table row at a position. Called from several
            threads. Raises :class:`core.data.decode.UnreadableError`.
        stamp: JSON-serialisable; changes when the files change (names, sizes, modification times).
        form: Default pixel format.
        notes: Sentences for the user on how the files were read.
    """

    name: str
    table: pd.DataFrame
    read: Callable[[int], Raw]
    stamp: Any
    form: TargetFormat = field(default_factory=TargetFormat)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.table.empty:
            raise UserError(f"{self.name}: there are no images in it.", "Check the path and the format.")
        for column in ("id", "class", "group"):
            _check_names(self.name, column, self.table[column].tolist())
        duplicates = self.table["id"][self.table["id"].duplicated()]
        if len(duplicates):
            raise UserError(
                f"{self.name}: the image id {duplicates.iloc[0]!r} occurs twice.", "Give every image a unique id."
            )

    def __len__(self) -> int:
        return len(self.table)


def _check_names(name: str, column: str, values: list[str]) -> None:
    """Raise a UserError for names that cannot be stored or that other programs cannot read."""
    for value in dict.fromkeys(values):
        if not value and column != "group":
            raise UserError(f"{name}: the {column} of an image is empty.", "Give it a name.")
        if len(value) > MAX_CHARACTERS:
            raise UserError(
                f"{name}: the {column} that begins with {value[:40]!r} has {len(value):,} characters.",
                f"Shorten it to at most {MAX_CHARACTERS:,}.",
            )
        if _NOT_TEXT.search(value):
            raise UserError(
                f"{name}: the {column} {value[:80]!r} is not valid UTF-8 text.", "Rename it; names must be UTF-8."
            )


def make_table(
    ids: Sequence[str], classes: Sequence[str], splits: Sequence[str] = (), groups: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the table of a listing built from its columns; missing ones are empty."""
    empty = [""] * len(ids)
    columns = {"id": ids, "class": classes, "split": splits or empty, "group": groups or empty}
    return pd.DataFrame(columns, dtype=object).assign(turn=0)


def with_rotations(listing: Listing) -> Listing:
    """Add copies of every class rotated by 90, 180 and 270 degrees, each as a separate class.

    This is standard practice on Omniglot (Santoro et al. 2016; Vinyals et al. 2016). A rotated class stays in the split
    of its original.

    Raises:
        UserError: a rotated class would have the name of an existing class.
    """
    n = len(listing)
    classes = set(listing.table["class"])
    if existing := sorted(classes & {f"{name} @{90 * turns}" for name in classes for turns in (1, 2, 3)}):
        raise UserError(
            f"{listing.name}: the class {existing[0]!r} exists already.",
            "The classes seem to be rotated already: import them without rotations.",
        )
    table = listing.table
    rotated = [
        table.assign(id=table["id"] + f"@{90 * turn}", turn=turn, **{"class": table["class"] + f" @{90 * turn}"})
        for turn in (1, 2, 3)
    ]
    return replace(
        listing,
        table=pd.concat([table, *rotated], ignore_index=True),
        read=lambda position: listing.read(position % n),
        stamp=[listing.stamp, "turns"],
        notes=(*listing.notes, "Copies of every class rotated by 90, 180 and 270 degrees are added as classes."),
    )


def encode_labels(table: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels ``(n,)`` as int64 and the class names in alphabetical order."""
    labels, names = pd.factorize(table["class"], sort=True)
    return labels.astype(np.int64), tuple(str(name) for name in names)
