"""Share options, names and text formatting between the readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.data.decode import SUFFIXES

SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Accepted names of a split (in lower case), mapped to its standard name."""
DOWNLOAD_AGAIN = "Download it again."


@dataclass(frozen=True)
class ReadOptions:
    """A set of user options for the readers.

    Attributes:
        splits: Folder with the lists of the classes in each split; None: the one beside the data, or the standard one.
        encoding: Text encoding of a manifest; None: UTF-8, or UTF-16 if the file starts with its byte order mark.
    """

    splits: Path | None = None
    encoding: str | None = None


def is_image(name: str) -> bool:
    """Return whether the name has the extension of an image file, without checking the content."""
    return name.lower().endswith(SUFFIXES)


def source_name(path: Path) -> str:
    """Return the name of a folder or file without its extension, also for ``.``."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def format_names(names: Sequence[str], limit: int = 3) -> str:
    """Return text like ``'a', 'b', 'c' and 4 more``; long names are truncated."""
    shown = ", ".join(repr(name if len(name) <= 80 else name[:77] + "...") for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's string types."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the value type of a dictionary-encoded type, and any other type unchanged."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def column_values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values as ``to_pylist`` does, but share one object between rows with the same dictionary entry.

    A small file may expand to more than fits into memory otherwise.
    """
    values: list[Any] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            entries = chunk.dictionary.to_pylist()
            values += [None if row is None else entries[row] for row in chunk.indices.to_pylist()]
        else:
            values += chunk.to_pylist()
    return values
