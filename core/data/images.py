"""The in-memory form of an image data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.runtime.errors import UserError
from core.runtime.files import content_hash


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    Attributes:
        name: The source they came from, as :func:`core.data.load_images` takes it.
        images: ``(n, height, width, channels)`` uint8; channels is 1 or 3; ink is bright. May be a memory map, so
            take rows out of it and never a copy of it all.
        labels: ``(n,)`` int64 index into ``class_names``.
        class_names: One name a class.
        ids: ``(n,)`` strings; an id names the same image in every session and on every machine.
        splits: ``(n,)`` strings, ``train``, ``val`` or ``test``, of the data set's own split; None where it has none.
        groups: ``(n,)`` strings; images of one group (one writer, one patient) belong on the same side of any split.
        known_hash: What :attr:`hash` is, where it was computed when the images were stored.

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
    known_hash: str = ""

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.ndim != 4 or self.images.shape[3] not in (1, 3) or self.images.dtype != np.uint8:
            raise UserError(
                f"{self.name}: images must be uint8 of shape (n, height, width, 1 or 3), "
                f"not {self.images.dtype} of shape {self.images.shape}."
            )
        for what in ("labels", "ids", "splits", "groups"):
            column = getattr(self, what)
            if column is not None and column.shape != (n,):
                raise UserError(f"{self.name}: {n} images, but {len(column)} {what}.")
        bad = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if bad.size:
            raise UserError(
                f"{self.name}: image {self.ids[bad[0]]} has label {self.labels[bad[0]]}, "
                f"but there are {len(self.class_names)} classes.",
                f"Labels must lie between 0 and {len(self.class_names) - 1}.",
            )
        if len(self.index) != n:
            unique, counts = np.unique(self.ids, return_counts=True)
            twice = str(unique[counts > 1][0])
            raise UserError(f"{self.name}: the image id {twice!r} occurs twice.", "Give every image its own id.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every image id."""
        return {str(image_id): position for position, image_id in enumerate(self.ids)}

    @cached_property
    def hash(self) -> str:
        """Names this content: pixels, labels, class names and ids."""
        if self.known_hash:
            return self.known_hash
        return content_hash(self.images, self.labels, list(self.class_names), [str(i) for i in self.ids])
