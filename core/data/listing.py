"""Describe the images that a reader finds, before any image is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from core.data.decode import Raw
from core.runtime.errors import UserError

SPLITS = ("train", "val", "test")
COLUMNS = ("id", "class", "split", "group", "turn")
MAX_CHARACTERS = 1000


@dataclass(frozen=True)
class TargetFormat:
    """A pixel format that images are converted to.

    Attributes:
        size: Height and width; None leaves the images as they are, which requires one common size.
        channels: 1 (grey) or 3 (colour); None: grey if the sampled images are.
        invert: Invert dark-on-bright images to bright-on-dark: foreground is bright in this product.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    invert: bool = False


@dataclass(frozen=True, eq=False)
class Listing:
    """A list of images with their names and classes, and a function that reads each.

    Attributes:
        name: Default name of the image set.
        table: One row per image, in the order of the image set; text columns id (unique), class, split (``train``,
            ``val``, ``test``; ``""``: none) and group (``""``: none), and turn (counter-clockwise quarter turns).
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
        if list(self.table.columns) != list(COLUMNS):
            raise ValueError(f"a listing has the columns {COLUMNS}, not {tuple(self.table.columns)}")
        if self.table.empty:
            raise UserError(f"{self.name}: there are no images in it.", "Check the path and the format.")
        for column in ("id", "class", "group"):
            _check_names(self.name, column, self.table[column].tolist())
        twice = self.table["id"].duplicated()
        if twice.any():
            raise UserError(
                f"{self.name}: the image id {self.table['id'][twice].iloc[0]!r} occurs twice.",
                "Give every image its own id.",
            )

    def __len__(self) -> int:
        return len(self.table)


def _check_names(name: str, column: str, values: list[str]) -> None:
    """Raise a UserError for names that cannot be stored in this product's files or read by other programs."""
    for value in dict.fromkeys(values):
        if not value and column != "group":
            raise UserError(f"{name}: the {column} of an image is empty.", "Give it a name.")
        if len(value) > MAX_CHARACTERS:
            raise UserError(
                f"{name}: the {column} that begins with {value[:40]!r} has {len(value):,} characters.",
                f"Shorten it; the most is {MAX_CHARACTERS:,}.",
            )
        if "\0" in value or not _is_text(value):
            raise UserError(
                f"{name}: the {column} {value[:80]!r} holds characters that are no text.",
                "Rename it; file names must be in UTF-8.",
            )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_table(
    ids: list[str], classes: list[str], splits: list[str] | None = None, groups: list[str] | None = None
) -> pd.DataFrame:
    """Return the table of a listing built from its columns; missing ones are empty."""
    none = [""] * len(ids)
    columns = {"id": ids, "class": classes, "split": splits or none, "group": groups or none}
    table = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    return table.assign(turn=0)


def with_rotations(listing: Listing) -> Listing:
    """Add copies of every class rotated by 90, 180 and 270 degrees, each as a separate class.

    This is standard practice on Omniglot (Santoro et al. 2016; Vinyals et al. 2016). A rotated class stays in the split
    of its original.

    Raises:
        UserError: a rotated class would have the name of an existing class.
    """
    n = len(listing)
    classes = set(listing.table["class"])
    taken = sorted(classes & {f"{name} @{90 * turn}" for name in classes for turn in (1, 2, 3)})
    if taken:
        raise UserError(
            f"{listing.name}: there is a class {taken[0]!r} already.", "Its images seem to be turned: do not turn them."
        )
    parts = [
        listing.table.assign(
            id=listing.table["id"] + f"@{90 * turn}", turn=turn, **{"class": listing.table["class"] + f" @{90 * turn}"}
        )
        if turn
        else listing.table
        for turn in range(4)
    ]
    return replace(
        listing,
        table=pd.concat(parts, ignore_index=True),
        read=lambda position: listing.read(position % n),
        stamp=[listing.stamp, "turns"],
        notes=(*listing.notes, "Every class also occurs turned by 90, 180 and 270 degrees, as classes of their own."),
    )


def class_sizes(table: pd.DataFrame) -> pd.Series:
    """Return the number of images per class, in ascending order."""
    return table.groupby("class").size().sort_values(kind="stable")


def encode_labels(table: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels ``(n,)`` as int64 and the class names in alphabetical order."""
    labels, names = pd.factorize(table["class"], sort=True)
    return labels.astype(np.int64), tuple(str(name) for name in names)
