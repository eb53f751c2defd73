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
import pyarrow.parquet as pq

from core.runtime.errors import UserError
from core.runtime.failed_downloads import HEAD_BYTES, check_download

FORMATS = ("parquet", "csv", "json")
TEXT = ("task_id", "role", "image_id", "class")
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
    if not path.is_file():
        raise UserError(f"{path} does not exist.", f"Specify the path of a {what}.")
    if path.suffix[1:] not in FORMATS:
        raise unknown_format_error(path, what)
    with _errors_of(path):
        return path.read_bytes()


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
                _check_duplicates(path, pq.read_schema(io.BytesIO(content)).names)
                return pd.read_parquet(io.BytesIO(content))


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # readers raise different exceptions, which all mean that the file is invalid
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path.name} cannot be read as {path.suffix[1:]}: {reason}.", "Write it again.") from error


def unknown_format_error(path: Path, what: str = "task list") -> UserError:
    """Return the error for a file name whose extension is not that of a task list."""
    return UserError(
        f"{path.name}: {path.suffix or 'no extension'} is not a {what} format.", f"Use one of: {', '.join(FORMATS)}."
    )


def _parse_csv(path: Path, content: bytes, text_columns: Sequence[str] | None) -> pd.DataFrame:
    text = _decode_text(path, content)
    header = next(csv.reader(io.StringIO(text)), [])
    if len(header) == 1 and (separators := {";", "\t"} & set(header[0])):
        raise UserError(f"{path.name}: columns are separated by {min(separators)!r}.", "Save it with commas instead.")
    _check_duplicates(path, header)
    # Names are text even if they look like numbers, and "NA" is an ordinary name.
    types = str if text_columns is None else dict.fromkeys(text_columns, str)
    return pd.read_csv(io.StringIO(text), dtype=types, keep_default_na=False, **_EXACT_FLOATS)


def _parse_json(path: Path, content: bytes, what: str) -> pd.DataFrame | dict[str, Any]:
    value = json.loads(_decode_text(path, content))
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        raise UserError(f"{path.name} contains {_kind(value)}.", f"A {what} in JSON is a list of row objects.")
    for number, row in enumerate(value, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path.name}, row {number} is {_kind(row)}.", "Every row is an object with the columns.")
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


def _check_duplicates(path: Path, columns: Sequence[str]) -> None:
    if duplicates := [name for position, name in enumerate(columns) if name in columns[:position]]:
        raise UserError(f"{path.name}: the column {duplicates[0]!r} occurs twice.", "Keep one of them.")


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "nothing")
