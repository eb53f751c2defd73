"""Read a folder that the ``datasets`` library wrote with ``save_to_disk``, using its Arrow files only."""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from core.data.archive import file_stamp
from core.data.decode import Raw
from core.data.listing import Listing
from core.data.parquet_columns import column_values
from core.data.readers.common import ReadOptions, source_name
from core.data.readers.huggingface_columns import (
    Columns,
    check_types,
    class_labels,
    columns_of_features,
    image_bytes,
    labelled_rows,
)
from core.runtime.errors import UserError
from core.runtime.files import read_json
from core.runtime.reading import check_input

_SAVE_AGAIN = "Save it again with save_to_disk."


def read_saved(path: Path, options: ReadOptions) -> Listing:
    """Read a ``Dataset`` or ``DatasetDict`` with one column of images and one of labels.

    The columns are chosen by :func:`core.data.readers.huggingface_columns.columns_of_features`. Ids are ``train/00000``
    by split and row, ``00000`` in a dataset without splits; classes are the names of the ``ClassLabel``, or the values.
    Rows with label -1 or null (none) are skipped. The Arrow files stay on disk and are memory-mapped.

    Raises:
        UserError: a file is missing or damaged, or columns are missing or ambiguous; the text names them.
    """
    parts = {name: _read_part(folder) for name, folder in _part_folders(path).items()}
    first = next(iter(parts.values()))
    rows = labelled_rows({name: part.labels for name, part in parts.items()}, first.columns, path)

    def read(position: int) -> Raw:
        name, row = rows.sources[position]
        return parts[name].read(row)

    stamp = [[name, part.stamp] for name, part in parts.items()]
    return Listing(source_name(path), rows.table, read, stamp, notes=tuple(rows.notes))


def is_saved(names: list[str]) -> bool:
    """Return whether files with these names are for :func:`read_saved`."""
    return "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= set(names)


@dataclass(frozen=True, eq=False)
class _Part:
    folder: Path
    columns: Columns
    labels: list[str | None]
    chunks: list[pa.Array]
    ends: list[int]  # cumulative number of rows at the end of each chunk
    stamp: Any

    def read(self, row: int) -> Raw:
        chunk = bisect_right(self.ends, row)
        return image_bytes(self.chunks[chunk][row - (self.ends[chunk - 1] if chunk else 0)].as_py(), self.folder)


def _part_folders(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder.", "Use the unpacked folder that save_to_disk wrote.")
    file = path / "dataset_dict.json"
    if not file.is_file():
        return {"": path}
    description = read_json(_regular_file(file))
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
    columns = columns_of_features(features, folder, folder / "dataset_info.json")
    chunks, values = [], []
    for file in files:
        images, labels = _read_arrow(file, columns)
        chunks += images
        values += labels
    stamp = [file_stamp(file) for file in files]
    ends = list(accumulate(map(len, chunks)))
    return _Part(folder, columns, class_labels(values, columns, folder), chunks, ends, [stamp, features])


def _regular_file(file: Path) -> Path:
    check_input(file)  # reading a pipe could block forever
    return file


def _read_arrow(file: Path, columns: Columns) -> tuple[list[pa.Array], list[Any]]:
    """Return the chunks of the image column, and all labels."""
    try:
        with pa.memory_map(str(_regular_file(file))) as source:
            if any(_is_compressed(message) for message in pa.ipc.MessageReader.open_stream(source)):
                raise UserError(f"{file} is compressed, which save_to_disk never does.", _SAVE_AGAIN)
            source.seek(0)
            with pa.ipc.open_stream(source) as reader:
                schema = reader.schema
            check_types(schema, columns, file, "dataset_info.json")
            fields = [schema.get_field_index(column) for column in (columns.image, columns.label)]
            source.seek(0)
            # Read only these columns: others may have types that expand to any size.
            with pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(included_fields=fields)) as reader:
                table = reader.read_all()
        table.validate(full=True)  # offsets of an untrusted file may be out of range
        return list(table.column(columns.image).chunks), column_values(table.column(columns.label))
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise UserError(f"{file} is damaged or not an Arrow file: {str(error)[:200]}.", _SAVE_AGAIN) from error


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
