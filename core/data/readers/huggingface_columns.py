"""Choose and read the columns of images and labels of a data set in the conventions of Hugging Face ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from core.data.decode import MAX_BYTES, UnreadableError
from core.data.listing import make_table
from core.data.parquet_columns import is_text, value_type
from core.data.readers.common import split_word
from core.data.readers.tables import LABEL_NAMES, PATH_NAMES, usual_columns
from core.runtime.errors import UserError
from core.runtime.progress import format_count, format_names
from core.runtime.reading import read_input

IMAGE_NAMES = ("image", "img")
_DEFINITE_PATHS = tuple(name for name in PATH_NAMES if "path" in name or "file" in name)
_SAVE_AGAIN = "Save the data set again."
_NO_IMAGES = ("Audio", "Video", "Pdf")
"""Types of ``datasets`` that are stored like images, as a struct of bytes and a path."""


class Columns(NamedTuple):
    """The columns of a data set that are read, and the class names if the labels are their numbers."""

    image: str
    label: str
    names: tuple[str, ...] | None


def columns_of_features(features: dict[str, Any], place: object, source: object) -> Columns:
    """Choose the columns by their types in ``datasets``.

    If there are several candidates, columns called ``image`` or ``img`` are used, and the first of
    :data:`core.data.readers.tables.LABEL_NAMES`.

    Args:
        features: Description of every column by its name, as in ``dataset_info.json``.
        place: Folder or file that errors name.
        source: File that contains ``features``.

    Raises:
        UserError: there is no candidate, or several without such a name, or the class names are missing.
    """
    kinds = _feature_types(features)
    plain = usual_columns([name for name, kind in kinds.items() if kind == "Value"], LABEL_NAMES)
    return _choose_columns(kinds, _of_type(kinds, "Image"), plain, features, place, source)


def columns_of_schema(schema: pa.Schema, features: dict[str, Any], place: object) -> Columns:
    """Choose the columns by :func:`columns_of_features`, and by the types in the file where ``features`` has none.

    Without features, a column of images contains bytes or a struct of bytes and paths, and a column of labels contains
    numbers or text and has one of :data:`core.data.readers.tables.LABEL_NAMES`.
    """
    kinds = {field.name: str(field.type)[:80] for field in schema}
    plain = usual_columns([field.name for field in schema if holds_labels(field.type)], LABEL_NAMES)
    return _choose_columns(kinds, image_columns(schema, features), plain, features, place, place)


def image_columns(schema: pa.Schema, features: dict[str, Any]) -> list[str]:
    """Return the names of the columns that may contain images; none if paths in another column are more likely to."""
    types = _feature_types(features)
    if declared := [name for name in _of_type(types, "Image") if name in schema.names]:
        return declared
    others = [field for field in schema if types.get(field.name, field.name.capitalize()) not in _NO_IMAGES]
    structs = [field.name for field in others if pa.types.is_struct(field.type) and "bytes" in _fields(field.type)]
    found = [name for name in structs if holds_images(schema.field(name).type)]
    found += [field.name for field in others if _is_bytes(value_type(field.type))]
    is_certain = bool(structs) or any(name in IMAGE_NAMES for name in found)
    return found if is_certain or not has_paths(schema, _DEFINITE_PATHS) else []


def has_paths(schema: pa.Schema, names: Collection[str] = PATH_NAMES) -> bool:
    """Return whether a column of text has one of the usual ``names`` of a column of image files."""
    return bool(usual_columns([field.name for field in schema if _is_text(value_type(field.type))], [*names]))


def check_types(schema: pa.Schema, columns: Columns, file: Path, source: str) -> None:
    """Raise UserError unless the file has both columns, each once and with a type that can be read safely.

    Args:
        source: What lists the columns, in errors.
    """
    fits: dict[str, Callable[[pa.DataType], bool]] = {columns.image: holds_images, columns.label: holds_labels}
    for name, is_readable in fits.items():
        positions = schema.get_all_field_indices(name)
        if len(positions) != 1:
            count = f"{len(positions)} columns" if positions else "no column"
            raise UserError(f"{file} has {count} {name!r}, unlike {source}.", _SAVE_AGAIN)
        kind = schema.field(positions[0]).type
        if not is_readable(value_type(kind)):
            raise UserError(f"{file}: the column {name!r} has type {str(kind)[:80]}.", _SAVE_AGAIN)


def holds_images(kind: pa.DataType) -> bool:
    """Return whether a column type can store images: encoded images, paths to them, or a struct of both."""
    if not pa.types.is_struct(kind):
        return _is_bytes(kind) or _is_text(kind)
    fields = _fields(kind)
    content, path = fields.get("bytes", pa.null()), fields.get("path", pa.null())
    has_content, has_path = not pa.types.is_null(content), not pa.types.is_null(path)
    fits = (_is_bytes(content) or not has_content) and (_is_text(path) or not has_path)
    return fits and (has_content or has_path)


def holds_labels(kind: pa.DataType) -> bool:
    """Return whether a column type can store labels: text, numbers, or true and false."""
    kind = value_type(kind)
    return _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def class_labels(values: Sequence[Any], columns: Columns, place: object) -> list[str | None]:
    """Return the class of every row; None if the row has no label (null or -1).

    Without class names, -1 is a class if there is exactly one other: labels of two classes may be -1 and 1.

    Raises:
        UserError: a value is not a class name or not the number of a class; the text names the row, counted from 0.
    """
    labels: list[str | None] = []
    numbers = [_whole(value) for value in values]
    others = {value for value in numbers if value not in (None, -1)}
    is_class = columns.names is None and len(others) == 1
    for row, value in enumerate(numbers):
        if value is None or (type(value) is int and value == -1 and not is_class):
            labels.append(None)
        elif columns.names is None:
            if not isinstance(value, str | int) or value == "":
                what = f"{place}, row {row}: {columns.label} is {str(value)[:80]!r}, which is not a class name."
                raise UserError(what, "Correct it.")
            labels.append(str(value))
        elif type(value) is int and 0 <= value < len(columns.names):
            labels.append(columns.names[value])
        else:
            shown = value if isinstance(value, int) else str(value)[:80]
            what = f"{place}, row {row}: {columns.label} is {shown!r}, but there are {len(columns.names)} classes."
            raise UserError(what, _SAVE_AGAIN)
    return labels


def _whole(value: Any) -> Any:
    """Return a number without a fraction as an integer, NaN as None, and anything else unchanged."""
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else value
    return value


def image_bytes(value: Any, folder: Path) -> bytes:
    """Return the encoded image in a cell of the column of images: bytes, a path, or a dictionary of both.

    Args:
        folder: Folder that a path is relative to.

    Raises:
        UnreadableError: the cell is empty, or its path is not that of a readable file.
    """
    content, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(content, str):  # written by the oldest versions
        content, name = None, content
    if content is not None:
        return content
    if not name:
        raise UnreadableError("the row has no image")
    try:
        return read_input(folder / name, MAX_BYTES)
    except UserError as error:
        raise UnreadableError(error.what.rstrip(".")) from error


class LabelledRows(NamedTuple):
    """The labelled rows of all parts of a data set.

    Attributes:
        table: Table of a :class:`core.data.listing.Listing`.
        sources: Name of the part and row in it, for every row of the table.
        notes: Sentences on the columns, the splits and the rows without a label.
    """

    table: pd.DataFrame
    sources: list[tuple[str, int]]
    notes: list[str]


def labelled_rows(labels: Mapping[str, Sequence[str | None]], columns: Columns, place: object) -> LabelledRows:
    """List the labelled rows, with ids like ``train/00000``, by part and row; ``00000`` if the name of a part is empty.

    Args:
        labels: Class of every row (None: no label), by the name of the part. A part is a split if it is called so.

    Raises:
        UserError: there are rows, but no row has a label.
    """
    sources: list[tuple[str, int]] = []
    ids, classes, splits = [], [], []
    for name, part in labels.items():
        width = max(5, len(str(len(part))))
        for row, label in enumerate(part):
            if label is not None:
                sources.append((name, row))
                ids.append(f"{name}/{row:0{width}d}".removeprefix("/"))
                classes.append(label)
                splits.append(split_word(name))
    unlabelled = sum(len(part) for part in labels.values()) - len(sources)
    if unlabelled and not sources:
        what = f"{place}: all {format_count(unlabelled, 'row')} have no label (-1 or null in {columns.label!r})."
        raise UserError(what, "The labels of this part may not be public: use the other parts.")
    notes = [f"Images are in the column {columns.image!r}, classes in {columns.label!r}."]
    if unknown := [name for name in labels if name and not split_word(name)]:
        notes.append(
            f"Without a split, because they are not called train, validation or test: {format_names(unknown)}."
        )
    if unlabelled:
        notes.append(f"{format_count(unlabelled, 'image')} without a label (-1 or null) skipped.")
    return LabelledRows(make_table(ids, classes, splits), sources, notes)


def _choose_columns(
    kinds: dict[str, str], images: list[str], plain: list[str], features: dict[str, Any], place: object, source: object
) -> Columns:
    labelled = [name for name in _of_type(_feature_types(features), "ClassLabel") if name in kinds]
    image = _choose_column(images, IMAGE_NAMES, "images", place, kinds)
    label = _choose_column(labelled or plain, LABEL_NAMES, "labels", place, kinds)
    if label not in labelled:
        return Columns(image, label, None)
    names = features[label].get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{source}: the column {label!r} has no class names.", _SAVE_AGAIN)
    return Columns(image, label, tuple(names))


def _choose_column(found: list[str], default: tuple[str, ...], what: str, place: object, kinds: dict[str, str]) -> str:
    chosen = found if len(found) == 1 else [name for name in default if name in found]
    if chosen:
        return chosen[0]
    if found:
        raise UserError(
            f"{place} has several columns of {what}: {format_names(found, 10)}.",
            f"Rename the right one to {default[0]!r} with rename_column and save again.",
        )
    columns = format_names([f"{name} ({kind})" for name, kind in kinds.items()], 10) if kinds else "none"
    raise UserError(
        f"{place} has no column of {what}; its columns: {columns}.",
        f"Cast or rename the right one to {default[0]!r} and save again.",
    )


def _feature_types(features: dict[str, Any]) -> dict[str, str]:
    return {name: str(feature.get("_type")) for name, feature in features.items() if isinstance(feature, dict)}


def _of_type(kinds: dict[str, str], kind: str) -> list[str]:
    return [name for name, other in kinds.items() if other == kind]


def _fields(kind: pa.DataType) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in kind}


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_string_view(kind)
