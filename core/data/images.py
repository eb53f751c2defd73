"""Represent an image data set in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.runtime.errors import UserError
from core.runtime.hashing import content_hash


def squeeze_grey(pixels: np.ndarray) -> np.ndarray:
    """Return images ``(..., 1 or 3)`` as Pillow takes them: without the last axis if they are grey."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set of labelled images of one size.

    Attributes:
        name: Source of the images, as :func:`core.data.load_images` accepts it.
        images: ``(n, height, width, channels)`` uint8; channels is 1 or 3; foreground is bright. May be a memory map,
            so index rows and never copy the whole array.
        labels: ``(n,)`` int64 index into ``class_names``.
        class_names: One name per class.
        ids: ``(n,)`` strings; an id names the same image in every session and on every machine.
        splits: ``(n,)`` strings, ``train``, ``val`` or ``test``, of the data set's own split; None if it has none.
        groups: ``(n,)`` strings; images of one group (one writer, one patient) belong on the same side of any split.
        positions: ``(n,)`` int64 positions in torchvision's ``ImageFolder`` (with split folders, in those of train, val
            and test, concatenated), -1 where it does not list the file; None if the images are in no class folders.
        known_hash: Value of :attr:`hash` if it was computed when the images were stored.

    Raises:
        UserError: shapes disagree, a label is out of range, or an id occurs twice.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: np.ndarray
    splits: np.ndarray | None = None
    groups: np.ndarray | None = None
    positions: np.ndarray | None = None
    known_hash: str = ""

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.ndim != 4 or self.images.shape[3] not in (1, 3) or self.images.dtype != np.uint8:
            raise UserError(
                f"{self.name}: images must be uint8 of shape (n, height, width, 1 or 3), "
                f"not {self.images.dtype} of shape {self.images.shape}."
            )
        for field in ("labels", "ids", "splits", "groups", "positions"):
            column = getattr(self, field)
            if column is not None and column.shape != (n,):
                raise UserError(f"{self.name}: {n} images, but {len(column)} {field}.")
        bad = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if bad.size:
            raise UserError(
                f"{self.name}: image {self.ids[bad[0]]} has label {self.labels[bad[0]]}, "
                f"but there are {len(self.class_names)} classes.",
                f"Labels must lie between 0 and {len(self.class_names) - 1}.",
            )
        if len(self.index) != n:
            unique, counts = np.unique(self.ids, return_counts=True)
            duplicate = str(unique[counts > 1][0])
            raise UserError(f"{self.name}: the image id {duplicate!r} occurs twice.", "Give every image a unique id.")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"ImageSet({self.name}: {len(self):,} images of {size}, {len(self.class_names):,} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the height, width and channels of every image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @cached_property
    def index(self) -> dict[str, int]:
        """Return the position of every image id."""
        return {str(image_id): position for position, image_id in enumerate(self.ids)}

    @cached_property
    def hash(self) -> str:
        """Return a hash of the content: pixels, labels, class names and ids."""
        if self.known_hash:
            return self.known_hash
        return content_hash(self.images, self.labels, list(self.class_names), [str(i) for i in self.ids])
