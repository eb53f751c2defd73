"""Read a folder that the ``datasets`` library wrote with ``save_to_disk``, using its Arrow files only."""

from __future__ import annotations

import stat
import struct
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from core.data.archive import file_stamp
from core.data.decode import MAX_BYTES, Raw, UnreadableError
from core.data.listing import Listing, make_table
from core.data.readers.common import (
    SPLIT_WORDS,
    ReadOptions,
    column_values,
    format_names,
    is_text,
    source_name,
    value_type,
)
from core.runtime.errors import UserError
from core.runtime.files import read_json
from core.runtime.progress import format_count

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")
_SAVE_AGAIN = "Save it again with save_to_disk."


def read_huggingface(path: Path, options: ReadOptions) -> Listing:
    """Read a ``Dataset`` or ``DatasetDict`` with one column of images and one of labels.

    If there are several candidates, columns called ``image`` or ``img``, and ``label``, ``labels``, ``fine_label``,
    ``class`` or ``target`` are used. Ids are ``train/00000`` by split and row, ``00000`` in a dataset without splits;
    classes are the names of the ``ClassLabel``, or the values. Rows with label -1 (none) are skipped. The Arrow files
    stay on disk and are memory-mapped.

    Raises:
        UserError: a file is missing or damaged, or columns are missing or ambiguous; the text names them.
    """
    parts = {name: _read_part(folder) for name, folder in _part_folders(path).items()}
    rows: list[tuple[_Part, int]] = []
    ids, classes, splits = [], [], []
    for name, part in parts.items():
        width = max(5, len(str(len(part.labels))))
        for row, label in enumerate(part.labels):
            if label is not None:
                rows.append((part, row))
                ids.append(f"{name}/{row:0{width}d}".removeprefix("/"))
                classes.append(label)
                splits.append(SPLIT_WORDS.get(name.lower(), ""))
    first = next(iter(parts.values()))
    notes = [f"Images are in the column {first.image!r}, classes in {first.label!r}."]
    if unknown := [name for name in parts if name and name.lower() not in SPLIT_WORDS]:
        notes.append(
            f"Without a split, because they are not called train, validation or test: {format_names(unknown)}."
        )
    if unlabelled := sum(part.labels.count(None) for part in parts.values()):
        notes.append(f"{format_count(unlabelled, 'image')} without a label (-1) skipped.")

    def read(position: int) -> Raw:
        part, row = rows[position]
        return part.read(row)

    stamp = [[name, part.stamp] for name, part in parts.items()]
    return Listing(source_name(path), make_table(ids, classes, splits), read, stamp, notes=tuple(notes))


def is_huggingface(names: list[str]) -> bool:
    """Return whether files with these names are for :func:`read_huggingface`."""
    return "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= set(names)


@dataclass(frozen=True, eq=False)
class _Part:
    folder: Path
    image: str
    label: str
    labels: list[str | None]
    chunks: list[pa.Array]
    ends: list[int]  # cumulative number of rows at the end of each chunk
    stamp: Any

    def read(self, row: int) -> Raw:
        chunk = bisect_right(self.ends, row)
        value = self.chunks[chunk][row - (self.ends[chunk - 1] if chunk else 0)].as_py()
        content, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(content, str):  # written by the oldest versions
            content, name = None, content
        if content is not None:
            return content
        if not name:
            raise UnreadableError("the row has no image")
        try:
            file = self.folder / name
            status = file.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise UnreadableError(f"{name!r} is not an image file")
            return file.read_bytes()
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{name!r} cannot be read: {error}") from error


def _part_folders(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder.", "Use the unpacked folder that save_to_disk wrote.")
    file = path / "dataset_dict.json"
    if not file.is_file():
        return {"": path}
    description = read_json(file)
    names = description.get("splits") if isinstance(description, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file} does not list the splits.", _SAVE_AGAIN)
    return {name: _path_inside(name, file) for name in names}


def _path_inside(name: Any, file: Path) -> Path:
    """Return the path that a description file refers to, relative to its own folder."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or ".." in parts or parts[0] == "/" or "\0" in name:
        raise UserError(f"{file} refers to {name!r}, which is outside the dataset.", _SAVE_AGAIN)
    return file.parent / name


def _read_part(folder: Path) -> _Part:
    state, info = (read_json(_regular_file(folder / name)) for name in ("state.json", "dataset_info.json"))
    features = info.get("features") if isinstance(info, dict) else None
    listed = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(features, dict) or not isinstance(listed, list) or not listed:
        raise UserError(f"{folder}: state.json or dataset_info.json lists no files or no columns.", _SAVE_AGAIN)
    if state.get("_indices_data_files"):
        raise UserError(f"{folder} contains indices into another file.", "Call flatten_indices() and save it again.")
    named = [entry.get("filename") if isinstance(entry, dict) else None for entry in listed]
    files = [_path_inside(name, folder / "state.json") for name in named]
    image, label, names = _columns(features, folder)
    chunks, values = [], []
    for file in files:
        images, labels = _read_arrow(file, image, label)
        chunks += images
        values += labels
    stamp = [file_stamp(file) for file in files]
    ends = list(accumulate(map(len, chunks)))
    return _Part(folder, image, label, _label_names(values, names, folder, label), chunks, ends, [stamp, features])


def _regular_file(file: Path) -> Path:
    if not file.is_file():  # reading a pipe could block forever
        raise UserError(f"{file} does not exist or is not a file.", _SAVE_AGAIN)
    return file


def _columns(features: dict[str, Any], folder: Path) -> tuple[str, str, list[str] | None]:
    """Return the image column, the label column, and the class names if there are any."""
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    labelled = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    plain = [name for name, kind in kinds.items() if kind == "Value" and name.lower() in LABEL_NAMES]
    image = _choose_column(pictures, IMAGE_NAMES, "images", folder, kinds)
    label = _choose_column(labelled or plain, LABEL_NAMES, "labels", folder, kinds)
    names = features[label].get("names")
    if label in labelled and (not isinstance(names, list) or not all(isinstance(name, str) for name in names)):
        raise UserError(f"{folder / 'dataset_info.json'}: the column {label!r} has no class names.", _SAVE_AGAIN)
    return image, label, names if label in labelled else None


def _choose_column(found: list[str], default: tuple[str, ...], what: str, folder: Path, kinds: dict[str, Any]) -> str:
    chosen = found if len(found) == 1 else [name for name in default if name in found]
    if chosen:
        return chosen[0]
    if found:
        raise UserError(
            f"{folder} has several columns of {what}: {format_names(found, 10)}.",
            f"Rename the right one to {default[0]!r} with rename_column and save again.",
        )
    columns = format_names([f"{name} ({kind})" for name, kind in kinds.items()], 10) if kinds else "none"
    raise UserError(
        f"{folder} has no column of {what}; its columns: {columns}.",
        f"Cast or rename the right one to {default[0]!r} and save again.",
    )


def _read_arrow(file: Path, image: str, label: str) -> tuple[list[pa.Array], list[Any]]:
    """Return the chunks of the image column, and all labels."""
    try:
        with pa.memory_map(str(_regular_file(file))) as source:
            if any(_is_compressed(message) for message in pa.ipc.MessageReader.open_stream(source)):
                raise UserError(f"{file} is compressed, which save_to_disk never does.", _SAVE_AGAIN)
            source.seek(0)
            with pa.ipc.open_stream(source) as reader:
                schema = reader.schema
            fields = [schema.get_field_index(column) for column in (image, label)]
            for column, position, fits in zip((image, label), fields, (_holds_images, _holds_labels), strict=True):
                if position < 0:
                    raise UserError(f"{file} has no column {column!r}, which dataset_info.json lists.", _SAVE_AGAIN)
                kind = schema.field(position).type
                if not fits(value_type(kind)):
                    raise UserError(f"{file}: the column {column!r} has type {str(kind)[:80]}.", _SAVE_AGAIN)
            source.seek(0)
            # Read only these columns: others may have types that expand to any size.
            with pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(included_fields=fields)) as reader:
                table = reader.read_all()
        table.validate(full=True)  # offsets of an untrusted file may be out of range
        return list(table.column(image).chunks), column_values(table.column(label))
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise UserError(f"{file} is damaged or not an Arrow file: {str(error)[:200]}.", _SAVE_AGAIN) from error


def _holds_images(kind: pa.DataType) -> bool:
    """Return whether a column type can store images: encoded images, paths to them, or a struct of both."""
    if not pa.types.is_struct(kind):
        return _is_bytes(kind) or is_text(kind)
    fields = {field.name: field.type for field in kind}
    content, path = fields.get("bytes", pa.null()), fields.get("path", pa.null())
    has_content, has_path = not pa.types.is_null(content), not pa.types.is_null(path)
    fits = (_is_bytes(content) or not has_content) and (is_text(path) or not has_path)
    return fits and (has_content or has_path)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_labels(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _is_compressed(message: pa.ipc.Message) -> bool:
    """Return whether the body is compressed, so that a few bytes may expand to any size.

    PyArrow does not expose this, so follow the tables of its Message.fbs: Message.header, DictionaryBatch.data,
    RecordBatch.compression.
    """
    if message.type not in ("record batch", "dictionary"):
        return False
    metadata = message.metadata.to_pybytes()

    def field(table: int, number: int) -> int:
        """Return the offset of the field; 0 if it is absent."""
        directory = table - struct.unpack_from("<i", metadata, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", metadata, directory)[0]:
            return 0
        offset: int = struct.unpack_from("<H", metadata, directory + 4 + 2 * number)[0]
        return table + offset if offset else 0

    def inner(position: int) -> int:
        position += struct.unpack_from("<I", metadata, position)[0]
        return position

    batch = inner(field(inner(0), 2))
    if message.type == "dictionary":
        batch = inner(field(batch, 1))
    return field(batch, 3) > 0


def _label_names(values: list[Any], names: list[str] | None, folder: Path, column: str) -> list[str | None]:
    labels: list[str | None] = []
    for row, value in enumerate(values):
        if value is None or (names is not None and value == -1):
            labels.append(None)
        elif names is None:
            if not isinstance(value, str | int) or value == "":
                raise UserError(
                    f"{folder}, row {row}: {column} is {str(value)[:80]!r}, which is not a class name.", "Correct it."
                )
            labels.append(str(value))
        elif type(value) is int and 0 <= value < len(names):
            labels.append(names[value])
        else:
            raise UserError(
                f"{folder}, row {row}: {column} is {value!r}, but there are {len(names)} classes.", _SAVE_AGAIN
            )
    return labels
