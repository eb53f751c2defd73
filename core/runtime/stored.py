"""Read files of a home or a workspace whose shape is declared, and say in words what is wrong with a damaged one.

The shape of a JSON file is a type that pydantic validates (a dataclass, or a ``TypedDict`` where readers index the
content), that of a table is a mapping of columns to :data:`Kind`. Further fields and columns are allowed, because later
versions add some. Numbers, text and flags are never converted: a count that became text is damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

import numpy as np
import pandas as pd
from annotated_types import Ge, Le
from pydantic import ConfigDict, Field, InstanceOf, Strict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from core.runtime.errors import UserError, shorten_middle, shown
from core.runtime.files import check_regular_file, file_version, read_json
from core.runtime.sequence import LARGEST

Form = TypeVar("Form")

Text = InstanceOf[str]
"""Any text; pydantic's ``str`` refuses the names of files that are not UTF-8."""
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Ge(0), Le(LARGEST)]
Number = Annotated[float, Strict()]
"""A number that may be infinite or NaN, as measurements of a diverged model are."""
Finite = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Time = Annotated[str, Strict(), Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d")]
"""A time as :func:`core.runtime.clock.timestamp` writes it."""
OPEN = ConfigDict(extra="allow")
"""For the ``__pydantic_config__`` of a ``TypedDict``: further fields are kept."""

Kind = Literal["text", "optional text", "texts", "number", "finite", "integer", "flag"]
"""What a column holds: text, or text and missing values; lists of text; real numbers, which may be missing or infinite;
finite numbers; whole numbers; True or False."""

_MAX_BYTES = 64 << 20
_MAX_CHARACTERS = 160
_RESTORE = "Restore the file or create it again."
_WORDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a JSON object",
    "dataclass_type": "must be a JSON object",
    "finite_number": "must be finite",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "is_instance_of": "must be text",
    "list_type": "must be a list",
    "frozen_set_type": "must be a list",
    "missing": "is missing",
    "model_type": "must be a JSON object",
    "string_pattern_mismatch": "must be a time",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}
"""What pydantic's types of errors mean for a field."""


@overload
def read_stored(path: Path, form: type[Form], *, fix: str = ...) -> Form: ...
@overload
def read_stored(path: Path, form: Any, *, fix: str = ...) -> Any: ...
def read_stored(path: Path, form: Any, *, fix: str = _RESTORE) -> Any:
    """Return the content of a JSON file as ``form``, read only once until the file changes.

    Callers share the object and must not modify it. All writers replace files as a whole
    (:func:`core.runtime.files.replacing`), so new content has a new inode.

    Raises:
        UserError: the file is missing, too large, no regular file or no JSON, or a field is missing or of another type;
            the message names the file and the field, and ends with ``fix``.
    """
    return _read_version(path, file_version(path), form, fix)


@lru_cache(maxsize=32_768)
def _read_version(path: Path, version: tuple[int, int, int], form: Any, fix: str) -> Any:
    return validate(read_json(path, max_bytes=_MAX_BYTES, fix=fix), form, path, fix=fix)


@overload
def validate(content: Any, form: type[Form], path: Path, *, fix: str = ...) -> Form: ...
@overload
def validate(content: Any, form: Any, path: Path, *, fix: str = ...) -> Any: ...
def validate(content: Any, form: Any, path: Path, *, fix: str = _RESTORE) -> Any:
    """Return content that was read from ``path`` as ``form``; raise UserError that names the file and the field."""
    try:
        return _adapter(form).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{path}: {fault_of(error)}.", fix) from error
    except UserError as error:  # of a class of ours that checks itself
        raise UserError(f"{path}: {error.what}", fix) from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply.", fix) from error


@lru_cache(maxsize=256)
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)


def missing_field(name: str) -> PydanticCustomError:
    """Return the error to raise in a validator where a field is needed because of the value of another one."""
    return PydanticCustomError("missing", "Field required", {"name": name})


def fault_of(error: ValidationError) -> str:
    """Return the first validation error in at most a few lines: the field, what it must be, and what it is."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("should ")
    words = _WORDS.get(first["type"], f"is not valid: {message.rstrip('.')}")
    named = (first["ctx"]["name"],) if first["type"] == "missing" and "ctx" in first else ()
    field = ".".join(shorten_middle(str(part), 40) for part in (*first["loc"], *named)[-8:])
    text = f"the field {field!r} {words}" if field else f"the content {words}"
    return text if first["type"] == "missing" else f"{text}, not {shown(first['input'])}"


def read_table(
    path: Path, columns: Mapping[str, Kind] | None = None, *, may_be_empty: bool = False, fix: str = _RESTORE
) -> pd.DataFrame:
    """Return a parquet table whose columns are checked by :func:`check_table`.

    Raises:
        UserError: the file is missing, no regular file or damaged, or a column is.
    """
    check_regular_file(path)
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # a damaged file makes pandas and Arrow raise errors of many kinds
        text = shorten_middle(" ".join(str(error).split()), _MAX_CHARACTERS)
        raise UserError(f"{path} cannot be read: {text}.", fix) from error
    check_table(table, columns or {}, path, may_be_empty=may_be_empty, fix=fix)
    return table


def check_table(
    table: pd.DataFrame,
    columns: Mapping[str, Kind],
    path: Path,
    *,
    optional: Mapping[str, Kind] | None = None,
    may_be_empty: bool = False,
    fix: str = _RESTORE,
) -> None:
    """Raise UserError, which names ``path`` and the column, if a column is missing, doubled or of another kind.

    Args:
        optional: Columns that are checked only where the table has them.
    """
    if not table.columns.is_unique:
        twice = str(table.columns[table.columns.duplicated()][0])
        raise UserError(f"{path}: the column {shown(twice)} occurs twice.", fix)
    for name in columns:
        if name not in table:
            raise UserError(f"{path}: the column {name!r} is missing.", fix)
    if table.empty:  # whose columns need not have a type
        if may_be_empty:
            return
        raise UserError(f"{path} has no rows.", fix)
    for name, kind in {**(optional or {}), **columns}.items():
        if name in table and not _is_kind(table[name], kind):
            raise UserError(f"{path}: the column {name!r} must hold {_KIND_WORDS[kind]}.", fix)


_KIND_WORDS = {
    "text": "text",
    "texts": "lists of text",
    "number": "numbers",
    "finite": "finite numbers",
    "integer": "whole numbers",
    "flag": "True or False",
}
_KIND_WORDS["optional text"] = _KIND_WORDS["text"]


def _is_kind(column: pd.Series, kind: Kind) -> bool:
    types = pd.api.types
    is_flag = types.is_bool_dtype(column.dtype)
    match kind:
        case "number":
            return bool(types.is_numeric_dtype(column.dtype) and not is_flag) or bool(column.isna().all())
        case "finite":
            return _is_kind(column, "number") and bool(np.isfinite(column.to_numpy(float, na_value=np.nan)).all())
        case "integer":
            return bool(types.is_integer_dtype(column.dtype)) and not column.isna().any()
        case "flag":
            return bool(is_flag) and not column.isna().any()
        case "optional text":
            return _is_kind(column.dropna(), "text")
        case "text":
            known = isinstance(column.dtype, pd.StringDtype)
            return not column.isna().any() and (known or all(isinstance(value, str) for value in column))
        case "texts":
            return all(
                pd.api.types.is_list_like(value) and all(isinstance(one, str) for one in value) for value in column
            )
