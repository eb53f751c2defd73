"""Load labelled images, read the supported file formats and store image sets on disk."""

from core.data.images import ImageSet
from core.data.sources import SOURCES, load_images

__all__ = ["SOURCES", "ImageSet", "load_images"]
