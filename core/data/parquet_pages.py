"""Measure what the pages of a parquet file unpack to, without unpacking any.

A footer can understate the size of its columns, and PyArrow allocates what each page declares. This module follows the
page headers themselves, as PyArrow does, so that no limit relies on the footer. Both are structs of Thrift's
compact protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md); the numbers of
their fields are those of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from core.runtime.errors import UserError
from core.runtime.reading import check_unpacked_size, open_input

MAX_COLUMNS = 10_000
_MAX_FOOTER = 64_000_000
_MAX_VALUES = 3_000_000  # values in a footer; one has about 30 per column and row group
_MAX_PAGES = 200_000
_HEADER_BYTES = (1 << 10, 1 << 14, 1 << 18, 1 << 24)
"""Bytes to read for a page header, one after the other: only few have long statistics."""
_MAX_DEPTH = 16
_SHARED_PREFIXES = 7  # DELTA_BYTE_ARRAY: a value may begin with all of the value before
_DAMAGED = "Download it again, or write it again."
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


@dataclass(frozen=True)
class ParquetSizes:
    """The size of the columns of a parquet file.

    Attributes:
        rows: Number of rows that the footer declares.
        unpacked: Sum of the bytes that the pages unpack to.
    """

    rows: int
    unpacked: int


class _Page(NamedTuple):
    """The packed and the unpacked bytes of a page, and the number and encoding of its values; 0 for a dictionary."""

    packed: int
    unpacked: int
    values: int
    encoding: int


def check_parquet(source: Path | bytes, name: object, max_rows: int, columns: Collection[str] = ()) -> ParquetSizes:
    """Check the size of the columns that are to be read, before PyArrow reads any.

    Args:
        columns: Top-level names of the columns; empty: all.

    Raises:
        UserError: the file is damaged, has more than ``max_rows`` rows or too many columns, or one of its pages or all
            of them unpack to far more than their packed size.
    """
    with nullcontext(io.BytesIO(source)) if isinstance(source, bytes) else open_input(source) as stream:
        size = stream.seek(0, os.SEEK_END)
        try:
            footer = _read_footer(stream, size)
            groups: list[dict[int, Any]] = footer[4]
            rows = footer[3]
            if not 0 <= rows <= max_rows:
                raise UserError(f"{name} has {rows:,} rows.", f"The maximum is {max_rows:,}.")
            if len(footer[2]) > MAX_COLUMNS:
                raise UserError(f"{name} has {len(footer[2]):,} columns.", f"The maximum is {MAX_COLUMNS:,}.")
            packed = unpacked = pages = 0
            for group_rows, chunk in ((group[3], chunk[3]) for group in groups for chunk in group[1]):
                names = [part.decode("utf-8", "replace") for part in chunk[3]]
                if columns and names[0] not in columns:
                    continue
                values = 0
                for page in _pages(stream, chunk, size):
                    check_unpacked_size(f"A page of {name}", page.packed, page.unpacked)
                    if page.encoding == _SHARED_PREFIXES:
                        what = f"{name}: the column {'.'.join(names)!r} shares prefixes, so it can expand to any size."
                        raise UserError(what, "Write it again without DELTA_BYTE_ARRAY, for example by pandas.")
                    packed, unpacked, values = packed + page.packed, unpacked + page.unpacked, values + page.values
                    pages += 1
                    if pages > _MAX_PAGES:
                        raise UserError(
                            f"{name} has more than {_MAX_PAGES:,} pages.", "Write it again with larger ones."
                        )
                if max(values, chunk[5]) > group_rows and (columns or len(names) == 1):  # lists have several per row
                    raise ValueError(f"the column {'.'.join(names)!r} has more values than there are rows")
            check_unpacked_size(name, packed, unpacked)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError) as error:
            raise UserError(
                f"{name} is damaged or not a parquet file: {error or type(error).__name__}.", _DAMAGED
            ) from error
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror}.", "Check the file.") from error
    return ParquetSizes(rows, unpacked)


def _read_footer(stream: BinaryIO, size: int) -> dict[int, Any]:
    if size < 12:
        raise ValueError("it is too short")
    stream.seek(size - 8)
    length, magic = struct.unpack("<I4s", stream.read(8))
    if magic == b"PARE":
        raise ValueError("it is encrypted")
    if magic != b"PAR1" or not 0 < length <= min(size - 12, _MAX_FOOTER):
        raise ValueError("it has no footer")
    stream.seek(size - 8 - length)
    return _Struct(stream.read(length)).read()


def _pages(stream: BinaryIO, chunk: dict[int, Any], size: int) -> Iterator[_Page]:
    """Yield the pages of a column of a row group, in the order in which PyArrow reads them."""
    position, count, values = chunk[9], chunk[5], 0
    if 0 < chunk.get(11, 0) < position:
        position = chunk[11]
    end = position + chunk[7]
    while values < count and position < end:
        if position < 4 or end > size:
            raise ValueError("a column lies outside the file")
        header, length = _page_header(stream, position)
        packed, unpacked = header[3], header[2]
        data, encoding = (header[8], 4) if 8 in header else (header.get(5), 2)
        if min(packed, unpacked, data[1] if data else 0) < 0:
            raise ValueError("a page has a negative size")
        yield _Page(packed, unpacked, data[1] if data else 0, data[encoding] if data else 0)
        values += data[1] if data else 0
        position += length + packed


def _page_header(stream: BinaryIO, position: int) -> tuple[dict[int, Any], int]:
    for count in _HEADER_BYTES:
        stream.seek(position)
        content = stream.read(count)
        reader = _Struct(content)
        try:
            return reader.read(), reader.position
        except IndexError:
            if len(content) < count:
                break
    raise ValueError("a page is truncated")


class _Struct:
    """A parser of one struct, whose fields it returns by their numbers."""

    def __init__(self, content: bytes) -> None:
        self._content, self.position, self._left = content, 0, _MAX_VALUES

    def read(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while byte := self._byte():
            number = number + (byte >> 4) if byte >> 4 else self._signed()
            kind = byte & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("its footer has too many values")
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind in (_LIST, _SET):
            byte = self._byte()
            count = self._unsigned() if byte >> 4 == 15 else byte >> 4
            return [self._item(byte & 15, depth) for _ in range(count)]
        if kind == _MAP:
            count = self._unsigned()
            kinds = self._byte() if count else 0
            return [(self._item(kinds >> 4, depth), self._item(kinds & 15, depth)) for _ in range(count)]
        return self._item(kind, depth)

    def _item(self, kind: int, depth: int) -> Any:
        if kind == _STRUCT:
            return self.read(depth + 1)
        if not _TRUE <= kind <= _MAP or depth > _MAX_DEPTH:
            raise ValueError("it has a field of an unknown type")
        return self._value(kind, depth + 1)

    def _byte(self) -> int:
        byte = self._content[self.position]
        self.position += 1
        return byte

    def _bytes(self, count: int) -> bytes:
        if count > len(self._content) - self.position:
            raise IndexError("it is truncated")
        self.position += count
        return self._content[self.position - count : self.position]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("it has a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
