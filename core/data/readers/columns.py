"""Columns of Arrow and parquet files, of which a small one may claim to hold more than fits into memory."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Of the values, where they are kept in a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """As ``to_pylist``, but rows with the same entry of a dictionary share one object."""
    values: list[Any] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            entries = chunk.dictionary.to_pylist()
            values += [None if row is None else entries[row] for row in chunk.indices.to_pylist()]
        else:
            values += chunk.to_pylist()
    return values
