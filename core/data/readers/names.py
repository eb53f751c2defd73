"""Words and name endings that several formats share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.data.decode import SUFFIXES

SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What a split may be called (in lower case), and what it is called here."""


def is_picture(name: str) -> bool:
    """Whether the name ends as those of pictures do; what is in the file is another question."""
    return name.lower().endswith(SUFFIXES)


def called(path: Path) -> str:
    """The name of a folder or file without its ending, also of ``.``."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def some(names: Sequence[str], most: int = 3) -> str:
    """``'a', 'b', 'c' and 4 more``; long names are cut."""
    shown = ", ".join(repr(name if len(name) <= 80 else name[:77] + "...") for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def counted(count: int, singular: str, plural: str = "") -> str:
    """``1 picture``, ``2,000 pictures``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
