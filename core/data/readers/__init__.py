"""Read the image file formats that users have on disk: names and classes, without decoding any image."""

from core.data.readers.common import Reader, ReadOptions
from core.data.readers.registry import AUTO, READERS, detect, read_listing

__all__ = ["AUTO", "READERS", "ReadOptions", "Reader", "detect", "read_listing"]
