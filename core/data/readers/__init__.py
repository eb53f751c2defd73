"""Read the image file formats that users have on disk.

A reader takes a path and options and returns a :class:`core.data.listing.Listing`. It opens only what it needs to
determine names and classes, and decodes nothing.
"""

from core.data.readers.common import Reader, ReadOptions
from core.data.readers.registry import AUTO, READERS, detect, read_listing

__all__ = ["AUTO", "READERS", "ReadOptions", "Reader", "detect", "read_listing"]
