"""Images with labels: one form for all of them, the formats they are read from, and where they are kept."""

from core.data.images import ImageSet
from core.data.sources import SOURCES, load_images

__all__ = ["SOURCES", "ImageSet", "load_images"]
