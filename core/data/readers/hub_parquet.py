"""Read parquet files of images as the Hugging Face Hub stores them: the image bytes are in the table."""

from __future__ import annotations

import json
import os
import re
import threading
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from cachetools import LRUCache

from core.data.archive import FolderTree, Tree, ZipTree, file_stamp, open_tree
from core.data.decode import Raw, UnreadableError
from core.data.listing import SPLITS, Listing
from core.data.parquet_columns import MAX_UNPACKED, column_values, is_text, row_limit, value_type
from core.data.parquet_pages import check_parquet
from core.data.readers.common import ReadOptions, is_image, source_name, split_word
from core.data.readers.huggingface_columns import (
    Columns,
    check_types,
    class_labels,
    columns_of_schema,
    has_paths,
    image_bytes,
    image_columns,
    labelled_rows,
)
from core.data.readers.tables import MAX_ROWS
from core.runtime.errors import UserError
from core.runtime.failed_downloads import HEAD_BYTES, check_downloaded_file, describe_failed_download
from core.runtime.progress import format_count, format_names
from core.runtime.reading import check_input, open_input

_SUFFIX = ".parquet"
CACHED_BYTES = 128_000_000  # images kept because threads read them out of order
_CACHED_ROWS = 1024  # rows before an image that are kept when it is read; an import reads blocks of 512
_CURSORS = 4  # open files per data set; as many as there are threads that read images
_LABEL_ROWS = 1024  # labels read at a time
_BUFFER = 1 << 16  # bytes read from a file at a time
_SHARD = re.compile(r"(?P<part>.+?)-(?P<number>\d{5,})-of-(?P<shards>\d{5,})(?:-[0-9a-f]+)?")
_COMPRESSION = re.compile(r"\.(?:snappy|gz|gzip|zstd|zst|lz4|br)$", re.IGNORECASE)
_NUMBER = re.compile(r"^part-\d+-.*$|[-_. ]*(?:(?:part|shard|chunk|file|data)[-_. ]*)?\d+$", re.IGNORECASE)
_LAST_WORD = re.compile(r"(?P<before>.*)[^A-Za-z](?P<word>[A-Za-z]+)")
_PARTIAL = "partial-"  # prefix of the folder of a split that the Hub converted in part, because it is too large
_DAMAGED = "Download it again, or write it again."


def read_hub_parquet(path: Path, options: ReadOptions) -> Listing:
    """Read one parquet file, or a folder of them, with one column of images and one of labels.

    Splits are named by the files (``data/train-00000-of-00001.parquet``) or by their folders
    (``default/train/0000.parquet``). Columns are chosen by
    :func:`core.data.readers.huggingface_columns.columns_of_schema`; ids are ``train/00000`` by split and row over all
    its files in the order of their names. Classes are the names of the ``ClassLabel`` in the metadata of the files
    (https://huggingface.co/docs/datasets/about_dataset_features), or the values. Rows with label -1 or null (none) are
    skipped. Images are read when they are needed, and a path instead of an image is relative to the parquet file.

    Raises:
        UserError: a file is damaged or was not downloaded, there are several configurations, or columns are missing,
            ambiguous or too large; the text names the file and the column.
    """
    files, others = _parquet_files(path)
    parts = _find_parts(path, files)
    shards = {name: [_read_shard(files[one.name]) for one in part] for name, part in parts.items()}
    everything = [shard for part in shards.values() for shard in part]
    first = everything[0]
    for shard in everything:
        if shard.columns != first.columns:
            raise UserError(
                f"{first.file} and {shard.file} differ in their columns of images and labels, or in their class names.",
                "Import files of one data set.",
            )
    if sum(len(shard.labels) for shard in everything) > MAX_ROWS:
        raise UserError(f"{path} has more than {MAX_ROWS:,} rows.", f"The maximum is {MAX_ROWS:,}: import fewer files.")
    labels = {name: [label for shard in part for label in shard.labels] for name, part in shards.items()}
    rows = labelled_rows(labels, first.columns, path)
    ends = {name: list(accumulate(len(shard.labels) for shard in part)) for name, part in shards.items()}
    images = _Images(first.columns.image)

    def read(position: int) -> Raw:
        name, row = rows.sources[position]
        number = bisect_right(ends[name], row)
        return images.read(shards[name][number], row - (ends[name][number - 1] if number else 0))

    # Without the folder of the data set, which may be moved.
    stamp = [[one.name.partition("/")[2], file_stamp(files[one.name])] for part in parts.values() for one in part]
    notes = [*rows.notes, *_missing_shards(parts), *_unread_names(path, first.columns, rows.table["class"].tolist())]
    if unread := list(dict.fromkeys(name for shard in everything for name in shard.unread)):
        notes.append(f"Columns that are not read: {format_names(unread, 10)}.")
    if others:
        what = f"{format_count(len(others), 'image file')} beside the parquet files ({format_names(others)})"
        notes.append(f"Used only where a row refers to it: {what}.")
    return Listing(source_name(path), rows.table, read, [stamp, *first.columns], notes=tuple(notes))


def is_parquet(name: str) -> bool:
    """Return whether a file is a parquet file, by its name."""
    return name.lower().endswith(_SUFFIX)


def is_hub_parquet(source: Tree | Path) -> bool:
    """Return whether a folder, an archive or a file is for :func:`read_hub_parquet`.

    Only names and the schema of one file are read. A file that was not downloaded, and one that is named like those of
    the Hub but is damaged or has no columns of images or paths, is for that function too, which says what is wrong.
    """
    if isinstance(source, Path):
        return source.is_file() and is_parquet(source.name) and _is_for_hub(source)
    names = [name for name in source.files if is_parquet(name)]
    likely = [name for name in names if split_word(_take_apart(name).part)]
    if isinstance(source, ZipTree):
        return bool(likely) and not any(map(is_image, source.files))
    return bool(names) and _is_for_hub(source.path / (likely or names)[0])


def _is_for_hub(file: Path) -> bool:
    is_named_so = _SHARD.fullmatch(file.stem) is not None
    try:
        check_input(file)
        schema = pq.read_schema(file)
        return bool(image_columns(schema, _features(schema, file))) or (is_named_so and not has_paths(schema))
    except UserError:
        return True
    except (pa.ArrowException, OSError, ValueError):
        return is_named_so or bool(_failed_download(file))


def _failed_download(file: Path) -> str:
    try:
        with open_input(file) as stream:
            return describe_failed_download(stream.read(HEAD_BYTES))
    except (UserError, OSError):
        return ""


class _Name(NamedTuple):
    """A file name taken apart, for example ``plain_text/train-00000-of-00002.parquet``."""

    name: str
    part: str  # "train"; empty: unknown
    configuration: str  # "plain_text", possibly of several folders
    number: int  # 0
    shards: int  # 2; 0: unknown


def _take_apart(name: str) -> _Name:
    """Take a file name apart; the folder names a split if the file does not."""
    *folders, file = name.split("/")
    stem = _COMPRESSION.sub("", file[: -len(_SUFFIX)])
    number, shards, prefix, part = 0, 0, "", ""
    if sharded := _SHARD.fullmatch(stem):
        stem, number, shards = sharded["part"], int(sharded["number"]), int(sharded["shards"])
    else:
        stem = _NUMBER.sub("", stem)
    folder = folders[-1].removeprefix(_PARTIAL) if folders else ""
    last = _LAST_WORD.fullmatch(stem)
    if split_word(stem):
        part = stem
    elif last and split_word(last["word"]):
        prefix, part = last["before"], last["word"]
    if split_word(folder) and part in ("", folder):
        part = folder
        folders.pop()
    return _Name(name, part or stem, "/".join([*folders, *([prefix] if prefix else [])]), number, shards)


def _parquet_files(path: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the files by their names, which begin with the folder of all of them, and the images beside them."""
    if is_parquet(path.name) and path.is_file():
        return {f"{path.resolve().parent.name}/{path.name}": path}, []
    tree = open_tree(path)
    names = [name for name in tree.files if is_parquet(name)]
    if not names:
        raise UserError(f"{path} contains no parquet file.", "Use the folder that contains the files.")
    if not isinstance(tree, FolderTree):
        raise UserError(f"{path} is an archive of parquet files.", "Unpack it and use the folder.")
    files = {f"{path.resolve().name}/{name}": path / name for name in names}
    return files, [name for name in tree.files if is_image(name)]


def _find_parts(path: Path, files: dict[str, Path]) -> dict[str, list[_Name]]:
    """Return the files of every part, usually a split, in order.

    Raises:
        UserError: the files belong to several configurations or versions.
    """
    names = _folders_as_parts([_take_apart(name) for name in files])
    configurations = sorted({one.configuration for one in names})
    if len(configurations) > 1:
        shown = format_names([configuration.partition("/")[2] or "." for configuration in configurations], 10)
        raise UserError(
            f"{path} contains several configurations of a data set: {shown}.",
            "Use the folder of one of them; if files of several are in one folder, move one to a folder of its own.",
        )
    parts: dict[str, list[_Name]] = {}
    for one in sorted(names, key=lambda one: (_split_order(one.part), one.part, one.number, one.name)):
        parts.setdefault(one.part, []).append(one)
    for part in parts.values():
        totals = {one.shards for one in part}
        if len(totals) > 1 or (totals != {0} and len({one.number for one in part}) < len(part)):
            shown = format_names([files[one.name].name for one in part], 4)
            raise UserError(f"{path} contains several versions of the same images: {shown}.", "Keep the files of one.")
    return parts


def _folders_as_parts(names: list[_Name]) -> list[_Name]:
    """Let the folder name a part, as the Hub's converter does, if folders beside it are called like splits."""
    beside = {one.configuration for one in names if split_word(one.part)}
    found = []
    for one in names:
        above, _, folder = one.configuration.rpartition("/")
        is_part = not one.part and folder and above in beside
        found.append(one._replace(part=folder, configuration=above) if is_part else one)
    return found


def _split_order(part: str) -> int:
    split = split_word(part)
    return SPLITS.index(split) if split else len(SPLITS)


def _missing_shards(parts: dict[str, list[_Name]]) -> list[str]:
    notes = []
    for name, part in parts.items():
        if 0 < len(part) < part[0].shards:
            notes.append(f"Only {len(part):,} of the {part[0].shards:,} files of {name!r} are there.")
        if any(f"/{_PARTIAL}" in one.name for one in part):
            notes.append(f"{name!r} is the beginning of a split that was too large for the Hub to convert.")
    return notes


def _unread_names(path: Path, columns: Columns, classes: list[str]) -> list[str]:
    """Return a note if the classes are numbers although the description of the data set may name them."""
    is_named = columns.names is not None or not all(name.isdecimal() for name in set(classes))
    readme = next((folder / "README.md" for folder in (path, path.parent) if (folder / "README.md").is_file()), None)
    if is_named or readme is None:
        return []
    with open_input(readme) as stream:
        if b"class_label" not in stream.read(1_000_000):
            return []
    return [f"Classes are called by their numbers: {readme.name} may name them, but only the parquet files are read."]


@dataclass(frozen=True, eq=False)
class _Shard:
    file: Path
    columns: Columns
    leaves: list[str]  # parquet columns that the column of images consists of
    labels: list[str | None]
    starts: list[int]  # first row of each row group
    metadata: pq.FileMetaData
    unread: list[str]  # other columns


def _read_shard(file: Path) -> _Shard:
    check_input(file)
    check_downloaded_file(file)
    try:
        schema = pq.read_schema(file)
        columns = columns_of_schema(schema, _features(schema, file), file)
        check_types(schema, columns, file, "its description")
        check_parquet(file, file, row_limit(file.stat().st_size, MAX_ROWS), (columns.image, columns.label))
        shared = [columns.label] if is_text(value_type(schema.field(columns.label).type)) else []
        # As a dictionary, equal texts take up memory once.
        with pq.ParquetFile(file, read_dictionary=shared, buffer_size=_BUFFER) as opened:
            metadata = opened.metadata
            counts = _row_counts(metadata, file)
            values = _read_labels(opened, columns.label, counts, file)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{file} cannot be read: {os.strerror(error.errno)}.", "Check the file.") from error
        raise UserError(f"{file} is damaged or not a parquet file: {str(error)[:200]}.", _DAMAGED) from error
    starts = [0, *accumulate(counts)][:-1]
    leaves = _leaves(schema.field(columns.image))
    unread = [name for name in schema.names if name not in (columns.image, columns.label)]
    return _Shard(file, columns, leaves, class_labels(values, columns, file), starts, metadata, unread)


def _leaves(field: pa.Field) -> list[str]:
    """Return the parquet columns that a column of images consists of."""
    if not pa.types.is_struct(field.type):
        return [field.name]
    return [f"{field.name}.{inner.name}" for inner in field.type if inner.name in ("bytes", "path")]


def _row_counts(metadata: pq.FileMetaData, file: Path) -> list[int]:
    """Return the number of rows of each row group.

    The metadata of single columns is not used: PyArrow ends the process if that of a damaged file is read.

    Raises:
        UserError: the row groups contradict the file.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    counts = [group.num_rows for group in groups]
    sizes = [group.total_byte_size for group in groups]
    if min([*counts, *sizes], default=0) < 0 or sum(counts) != metadata.num_rows:
        raise _inconsistent(file, "its row groups do not add up")
    return counts


def _read_labels(opened: pq.ParquetFile, column: str, counts: list[int], file: Path) -> list[Any]:
    """Return the labels of all rows, reading a few at a time, because a file may contain more than it declares."""
    values: list[Any] = []
    shared: dict[Any, Any] = {}  # one object for equal labels of all batches
    size, end = 0, 0
    for group, count in enumerate(counts):
        end += count
        for batch in opened.iter_batches(_LABEL_ROWS, row_groups=[group], columns=[column], use_threads=False):
            batch.validate(full=True)  # dictionary indices of an untrusted file may be out of range
            size += batch.nbytes
            if size > MAX_UNPACKED:
                what = f"{file}: the column {column!r} has more than {MAX_UNPACKED:,} bytes."
                raise UserError(what, "Labels are numbers or short names.")
            values += [shared.setdefault(one, one) for one in column_values(pa.chunked_array([batch.column(column)]))]
            if len(values) > end:
                break
        if len(values) != end:
            raise _inconsistent(file, f"row group {group} does not have {count:,} rows in the column {column!r}")
    return values


def _inconsistent(file: Path, what: str) -> UserError:
    return UserError(f"{file} is damaged: {what}.", _DAMAGED)


def _features(schema: pa.Schema, file: Path) -> dict[str, Any]:
    """Return the description of the columns that ``datasets`` adds to the metadata of a file; empty if there is none.

    Raises:
        UserError: it is there but cannot be parsed.
    """
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: its metadata 'huggingface' is not valid JSON: {error}.", _DAMAGED) from error
    info = description.get("info") if isinstance(description, dict) else None
    features = info.get("features") if isinstance(info, dict) else None
    return features if isinstance(features, dict) else {}


class _Images:
    """A reader of single images from parquet files; it may be used by several threads.

    Parquet has no access by row, so a few cursors read forwards, and the cells that they passed are cached for a while:
    threads read images nearly in order.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._lock = threading.Lock()
        self._cells: LRUCache[tuple[_Shard, int], _Cell] = LRUCache(CACHED_BYTES, getsizeof=_cell_bytes)
        self._cursors: list[_Cursor] = []  # the one used last is at the end
        self._failures: dict[tuple[_Shard, int], tuple[int, str]] = {}  # the first damaged row of a row group, and why

    def read(self, shard: _Shard, row: int) -> bytes:
        try:
            with self._lock:
                cell = self._cells.get((shard, row)) or self._read_cell(shard, row)
            return image_bytes(cell.value, shard.file.parent)
        except UnreadableError as error:
            what = f"{shard.file.name}, row {row}, column {self._column!r}: {error}"
            raise UnreadableError(what) from error

    def _read_cell(self, shard: _Shard, row: int) -> _Cell:
        group = bisect_right(shard.starts, row) - 1
        failed_at, reason = self._failures.get((shard, group), (row + 1, ""))
        if row >= failed_at:  # what follows a damaged row cannot be reached
            raise UnreadableError(reason)
        try:
            cursor = self._take_cursor(shard, group, row)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UnreadableError(f"the file cannot be read ({str(error)[:200]})") from error
        try:
            while cursor.row < row - _CACHED_ROWS:
                cursor.skip()
            while cursor.row <= row:
                at, cell = cursor.row, cursor.read()
                if _cell_bytes(cell) <= CACHED_BYTES:
                    self._cells[shard, at] = cell
        except (pa.ArrowException, OSError, ValueError, StopIteration) as error:
            reason = f"damaged ({str(error)[:200] or 'the row group ends too early'})"
            self._failures[shard, group] = (cursor.row, reason)
            cursor.close()
            raise UnreadableError(reason) from error
        self._cursors.append(cursor)
        for unused in self._cursors[:-_CURSORS]:
            unused.close()
        del self._cursors[:-_CURSORS]
        return cell

    def _take_cursor(self, shard: _Shard, group: int, row: int) -> _Cursor:
        """Remove and return the cursor that is nearest before the row, or a new one at the start of its row group."""
        before = [one for one in self._cursors if (one.shard, one.group) == (shard, group) and one.row <= row]
        if not before:
            return _Cursor(shard, group)
        nearest = max(before, key=lambda one: one.row)
        self._cursors.remove(nearest)
        return nearest


class _Cell(NamedTuple):
    value: Any  # bytes, path, dictionary of both, or None


def _cell_bytes(cell: _Cell) -> int:
    values = cell.value.values() if isinstance(cell.value, dict) else [cell.value]
    return 200 + sum(len(value) for value in values if value is not None)


class _Cursor:
    """A position in the column of images of one row group.

    It reads one row at a time, so that equal images, which parquet may store once, take up memory once; this costs
    about 10 microseconds per image, much less than decoding it.
    """

    def __init__(self, shard: _Shard, group: int) -> None:
        self.shard, self.group, self.row = shard, group, shard.starts[group]
        self._file = pq.ParquetFile(
            shard.file, metadata=shard.metadata, buffer_size=_BUFFER, page_checksum_verification=True
        )
        self._rows = self._file.iter_batches(1, row_groups=[group], columns=shard.leaves, use_threads=False)

    def read(self) -> _Cell:
        cell = _Cell(self._next().column(self.shard.columns.image)[0].as_py())
        self.row += 1
        return cell

    def skip(self) -> None:
        self._next()
        self.row += 1

    def _next(self) -> pa.RecordBatch:
        batch = next(self._rows)
        batch.validate(full=True)
        return batch

    def close(self) -> None:
        self._file.close()
