"""What the user may say about how files are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.data.listing import Listing


@dataclass(frozen=True)
class ReadOptions:
    """Attributes:
    splits: Folder with the lists of which class is in which split; None: the one beside the data, or the usual one.
    encoding: How the text of a manifest is encoded; None: UTF-8, or UTF-16 where its first two bytes say so.
    """

    splits: Path | None = None
    encoding: str | None = None


Reader = Callable[[Path, ReadOptions], Listing]
"""Raises UserError where the files are not of its format."""
