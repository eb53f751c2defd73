"""Images with labels: one in-memory form, and the sources it is read from."""

from core.data.images import ImageSet
from core.data.sources import SOURCES, load_images

__all__ = ["SOURCES", "ImageSet", "load_images"]
