"""Say by which numbers other tools name the images of a set."""

from __future__ import annotations

import numpy as np

from core.data.images import ImageSet

IMAGE_FOLDER, IMAGE_SET = "imagefolder", "image-set"
"""Whose positions are meant: torchvision's ``ImageFolder``, or the image set."""


def numbering(images: ImageSet) -> str:
    """Return whose positions other tools use: those of ``ImageFolder`` if they are known and it lists any image."""
    return IMAGE_FOLDER if images.positions is not None and (images.positions >= 0).any() else IMAGE_SET


def positions_in(images: ImageSet, whose: str) -> np.ndarray:
    """Return the ``(n,)`` int64 positions of the images, -1 for images that have none.

    Args:
        whose: :data:`IMAGE_FOLDER`, for an image set whose positions there are known, or :data:`IMAGE_SET`.
    """
    if whose == IMAGE_SET:
        return np.arange(len(images))
    if images.positions is None:
        raise ValueError(f"{images.name} has no positions in ImageFolder")
    return images.positions


def numbering_text(images: ImageSet, whose: str) -> str:
    """Return whose positions are meant, in words that complete "positions are those of"."""
    if whose == IMAGE_SET:
        return f"the image set {images.name}"
    if images.splits is None:
        return "torchvision's ImageFolder"
    return "torchvision's ImageFolder, or of several split folders: those of train, val and test, concatenated"
