"""Read columns of Arrow and parquet files, where a small file may expand to more than fits into memory."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's string types."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the value type of a dictionary-encoded type, and any other type unchanged."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """Return the values as ``to_pylist`` does, but share one object between rows with the same dictionary entry."""
    values: list[Any] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            entries = chunk.dictionary.to_pylist()
            values += [None if row is None else entries[row] for row in chunk.indices.to_pylist()]
        else:
            values += chunk.to_pylist()
    return values
