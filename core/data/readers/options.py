"""Define the options that control how files are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.data.listing import Listing


@dataclass(frozen=True)
class ReadOptions:
    """A set of user options for the readers.

    Attributes:
        splits: Folder with the lists of the classes in each split; None: the one beside the data, or the standard one.
        encoding: Text encoding of a manifest; None: UTF-8, or UTF-16 if the file starts with its byte order mark.
    """

    splits: Path | None = None
    encoding: str | None = None


Reader = Callable[[Path, ReadOptions], Listing]
"""A function that reads one format; raises UserError if the files have another format."""
