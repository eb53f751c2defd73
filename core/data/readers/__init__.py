"""The formats that images are read from: what people have on their disks.

A reader takes a path and options and returns a :class:`core.data.listing.Listing`; it opens what it needs to know
names and classes and decodes nothing.
"""

from core.data.readers.options import Reader, ReadOptions
from core.data.readers.registry import AUTO, READERS, detect, read_listing

__all__ = ["AUTO", "READERS", "ReadOptions", "Reader", "detect", "read_listing"]
