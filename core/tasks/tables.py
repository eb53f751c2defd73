"""Read the rows of a task list from a file, before they are validated."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from core.data.parquet_columns import (
    MAX_COLUMNS,
    check_cells,
    check_unique,
    column_values,
    is_text,
    read_columns,
    value_type,
)
from core.runtime.errors import UserError
from core.runtime.failed_downloads import HEAD_BYTES, check_download
from core.runtime.reading import check_input, read_input

FORMATS = ("parquet", "csv", "json")
TEXT = ("task_id", "role", "image_id", "class")
MAX_BYTES = {".parquet": 2_000_000_000, ".csv": 2_000_000_000, ".json": 1_000_000_000}
"""Maximum size of a file by its extension."""
MAX_ROWS = 100_000_000
_MAX_BRACKETS = 10_000_000  # lists and objects in JSON, an empty one of which takes up 64 bytes in memory
_PANDAS = tuple(map(int, pd.__version__.split(".")[:2]))
# From pandas 3.1 on, every number is parsed exactly, and the option is deprecated.
_EXACT_FLOATS: dict[str, Any] = {} if _PANDAS >= (3, 1) else {"float_precision": "round_trip"}


def read_table(path: Path, what: str = "task list", text: Sequence[str] | None = TEXT) -> pd.DataFrame | dict[str, Any]:
    """Read the table in a ``.parquet``, ``.csv`` or ``.json`` file, or the object if JSON contains no list of rows.

    Args:
        what: Name of such a table in errors.
        text: Columns of a csv file that are text even if they look like numbers; None: all of them.

    Raises:
        UserError: the file is missing, is not a table, has another format or encoding than UTF-8, or is damaged.
    """
    return parse_table(path, read_content(path, what), what, text)


def read_content(path: Path, what: str = "task list") -> bytes:
    """Return the content of a table's file, for :func:`parse_table`."""
    check_input(path)
    if path.suffix[1:] not in FORMATS:
        raise unknown_format_error(path, what)
    return read_input(path, MAX_BYTES[path.suffix])


def parse_table(
    path: Path, content: bytes, what: str = "task list", text: Sequence[str] | None = TEXT
) -> pd.DataFrame | dict[str, Any]:
    """Parse the ``content`` of the file at ``path``; see :func:`read_table`."""
    check_download(path.name, content[:HEAD_BYTES])
    with _errors_of(path):
        match path.suffix:
            case ".csv":
                return _parse_csv(path, content, text)
            case ".json":
                return _parse_json(path, content, what)
            case _:
                return _parse_parquet(path, content)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # readers raise different exceptions, which all mean that the file is invalid
        reason = " ".join(str(error)[:500].split()).rstrip(".")
        raise UserError(f"{path.name} cannot be read as {path.suffix[1:]}: {reason}.", "Write it again.") from error


def unknown_format_error(path: Path, what: str = "task list") -> UserError:
    """Return the error for a file name whose extension is not that of a task list."""
    return UserError(
        f"{path.name}: {path.suffix or 'no extension'} is not a {what} format.", f"Use one of: {', '.join(FORMATS)}."
    )


def _parse_parquet(path: Path, content: bytes) -> pd.DataFrame:
    """Return the table; a column of lists or objects holds its type in every row, which is neither text nor number."""
    columns, others = read_columns(content, path.name, MAX_ROWS, with_times=True)
    table = {name: _series(values) for name, values in columns.items()}
    rows = len(next(iter(columns.values()), ()))
    return pd.DataFrame(table | {name: pd.Series([kind] * rows, dtype=object) for name, kind in others.items()})


def _series(column: pa.ChunkedArray) -> pd.Series:
    return pd.Series(column_values(column), dtype=object) if is_text(value_type(column.type)) else column.to_pandas()


def _parse_csv(path: Path, content: bytes, text_columns: Sequence[str] | None) -> pd.DataFrame:
    text = _decode_text(path, content)
    header = next(csv.reader(io.StringIO(text)), [])
    if len(header) == 1 and (separators := {";", "\t"} & set(header[0])):
        raise UserError(f"{path.name}: columns are separated by {min(separators)!r}.", "Save it with commas instead.")
    if len(header) > MAX_COLUMNS:
        raise UserError(f"{path.name} has {len(header):,} columns.", f"The maximum is {MAX_COLUMNS:,}.")
    check_unique(header, path.name)
    # Names are text even if they look like numbers, and "NA" is an ordinary name.
    types = str if text_columns is None else dict.fromkeys(text_columns, str)
    # Before 3.1, the fast parser of pandas ends a text at a NUL, which would be another name without a word.
    parser = {"engine": "python"} if _PANDAS < (3, 1) and "\0" in text else _EXACT_FLOATS
    table = pd.read_csv(io.StringIO(text), dtype=types, keep_default_na=False, **parser)
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first cells for an index
        raise UserError(f"{path.name}: its rows have more cells than its header.", "Give each column a name.")
    return table


def _parse_json(path: Path, content: bytes, what: str) -> pd.DataFrame | dict[str, Any]:
    if content.count(b"{") + content.count(b"[") > _MAX_BRACKETS:
        raise UserError(f"{path.name} has more than {_MAX_BRACKETS:,} rows or lists.", "Save it as parquet.")
    value = json.loads(_decode_text(path, content))
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        raise UserError(f"{path.name} contains {_kind(value)}.", f"A {what} in JSON is a list of row objects.")
    for number, row in enumerate(value, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path.name}, row {number} is {_kind(row)}.", "Every row is an object with the columns.")
    check_cells(len(value), len({name for row in value for name in row}), len(content), path.name)
    return pd.DataFrame(value, dtype=object)  # other dtypes raise in pandas itself on values that the row checks report


def _decode_text(path: Path, content: bytes) -> str:
    if b"\x00" in content[:4] or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path.name} is not UTF-8 text; it looks like UTF-16.", "Save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path.name}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8 text.", "Save it as UTF-8."
        ) from error


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "nothing")
