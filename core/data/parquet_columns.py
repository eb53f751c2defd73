"""Read the columns of names and numbers in an untrusted parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.data.parquet_pages import MAX_COLUMNS as MAX_COLUMNS
from core.data.parquet_pages import check_parquet
from core.runtime.errors import UserError, shown

MAX_UNPACKED = 2_000_000_000
"""Maximum size of all columns that are read, in bytes."""
_MANY_ROWS, _ROWS_PER_BYTE = 500_000, 2
"""Rows that a file of any size may have, and rows per byte beyond: every row names something else, in half a byte."""
_MANY_CELLS = 1_000_000
_TIMES = (pa.types.is_temporal, pa.types.is_decimal, pa.types.is_null)


def read_columns(
    content: bytes, name: str, max_rows: int, *, with_times: bool = False
) -> tuple[dict[str, pa.ChunkedArray], dict[str, pa.DataType]]:
    """Return the columns of text and numbers by name, and the types of all others by name.

    Text is dictionary-encoded, because a small file can repeat one long text in many rows; see :func:`column_values`.

    Args:
        with_times: Return also columns of times, of decimal numbers, and of missing values only.

    Raises:
        UserError: the file is damaged, has a column twice, or its rows or bytes exceed a limit.
    """
    try:
        schema = pq.read_schema(pa.BufferReader(content))
        check_unique(schema.names, name)
        kinds = {field.name: field.type for field in schema}
        plain = [column for column, kind in kinds.items() if _is_plain(value_type(kind), with_times)]
        sizes = check_parquet(content, name, row_limit(len(content), max_rows), plain) if plain else None
        if sizes and sizes.unpacked > MAX_UNPACKED:
            what = f"{name} would unpack to {sizes.unpacked:,} bytes."
            raise UserError(what, f"The maximum is {MAX_UNPACKED:,} bytes; leave out the columns that are not needed.")
        shared = [column for column in plain if is_text(kinds[column])]
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=shared)
        columns = {column: file.read([column], use_threads=False).column(column) for column in plain}
        for column, values in columns.items():
            values.validate(full=True)  # dictionary indices of an untrusted file may be out of range
            if sizes and len(values) != sizes.rows:
                raise ValueError(f"it declares {sizes.rows:,} rows, but {shown(column)} has {len(values):,}")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        what = f"{name} is damaged or not a parquet file: {str(error)[:200]}."
        raise UserError(what, "Write it again.") from error
    return columns, {column: kind for column, kind in kinds.items() if column not in columns}


def row_limit(size: int, max_rows: int) -> int:
    """Return the number of rows that a table of ``size`` bytes may have."""
    return min(max_rows, _MANY_ROWS + _ROWS_PER_BYTE * size)


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


def check_unique(columns: Sequence[str], name: str) -> None:
    """Raise UserError if a column of the table called ``name`` occurs twice."""
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise UserError(f"{name}: the column {shown(column)} occurs twice.", "Keep one of them.")
        seen.add(column)


def check_cells(rows: int, columns: int, size: int, name: str) -> None:
    """Raise UserError if row objects of ``size`` bytes in all have too many different fields for a table of them."""
    if rows * columns > max(size, _MANY_CELLS):
        what = f"{name} has {rows:,} rows with {columns:,} different fields."
        raise UserError(what, "All rows of a table have the same columns.")


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the value type of a dictionary-encoded type, and any other type unchanged."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's string types."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_plain(kind: pa.DataType, with_times: bool) -> bool:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return is_text(kind) or is_number or (with_times and any(is_kind(kind) for is_kind in _TIMES))
