"""Share file extensions and text formatting between the readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.data.decode import SUFFIXES

SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Accepted names of a split (in lower case), mapped to its standard name."""


def is_picture(name: str) -> bool:
    """Return whether the name has a picture's extension, without checking the content."""
    return name.lower().endswith(SUFFIXES)


def called(path: Path) -> str:
    """Return the name of a folder or file without its extension, also for ``.``."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def some(names: Sequence[str], most: int = 3) -> str:
    """Return text like ``'a', 'b', 'c' and 4 more``; long names are truncated."""
    shown = ", ".join(repr(name if len(name) <= 80 else name[:77] + "...") for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return a count with its noun, such as ``1 picture`` or ``2,000 pictures``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
