"""Read tables of text columns, and find the columns of paths and labels in them."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from core.data.archive import Tree
from core.data.decode import UnreadableError
from core.data.parquet_columns import MAX_COLUMNS, check_cells, check_unique, column_values, read_columns
from core.data.readers.common import is_image, words_of
from core.runtime.errors import UserError
from core.runtime.failed_downloads import check_download
from core.runtime.progress import format_count, format_names

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
MAX_ROWS = 10_000_000
COLUMNS_HELP = "The columns are path and label, and optionally split (train, val, test), group and id."
PATH_NAMES = (
    *("path", "filename", "file_name", "filepath", "filepaths", "file_path", "file", "image_path", "img_path"),
    *("image_file", "image_filename", "image_name", "img_name", "image_id", "image", "images", "img", "id"),
)
"""Usual names of a column of image files, the most definite first; words are joined by ``_``, as of ``ImageId``."""
LABEL_NAMES = (
    *("label", "class_name", "label_name", "class", "labels", "classes", "target", "category", "species", "breed"),
    *("fine_label", "class_label", "class_id", "label_id", "diagnosis", "dx", "variety", "cultivar"),
)
"""Usual names of a column of classes, the most definite first."""
SPLIT_NAMES = ("split", "set", "subset", "partition", "data_set", "usage", "fold")
_WHOLE = re.compile(r"-?\d+\.0*")
_SEVERAL = re.compile(r"[;|,]")
_LIST = re.compile(r"\[\s*(['\"].*['\"]\s*)?\]")


@dataclass(frozen=True)
class Table:
    """A table as it is in a file.

    Attributes:
        name: Name of the file in its folder or archive.
        columns: Values by column name, in the order of the file; missing values are ``""``.
        places: The place of every row in errors, such as ``mine.csv, line 7``.
        unread: Types of the columns that hold neither text nor numbers, by name.
    """

    name: str
    columns: dict[str, list[str]]
    places: Sequence[str]
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """Return the name of the table with those of its columns."""
        return f"{self.name} (columns {format_names([*self.columns, *self.unread], 10)})"

    def find(self, names: Sequence[str]) -> list[str]:
        """Return the columns with one of the usual ``names``, in the order of these."""
        return usual_columns([*self.columns], names)


def usual_columns(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the columns with one of the usual ``names``, in the order of these."""
    plain: dict[str, list[str]] = {}
    for column in columns:
        plain.setdefault(_plain(column), []).append(column)
    return [column for name in names for column in plain.get(name, ())]


def is_table(name: str) -> bool:
    """Return whether a file is a table, by its name."""
    return name.lower().endswith(SUFFIXES)


def read_table(tree: Tree, name: str, encoding: str | None = None) -> Table:
    """Read the table called ``name``.

    Args:
        encoding: Text encoding; None: UTF-8, or UTF-16 if the file starts with its byte order mark.

    Raises:
        UserError: names the line of a text file, or the row of a parquet file counted from 1.
    """
    try:
        content = tree.read(name)
    except UnreadableError as unreadable:
        raise UserError(f"{name} cannot be read: {unreadable}.", "Check the file.") from unreadable
    check_download(name, content)
    kind = name.lower().rpartition(".")[2]
    if kind == "parquet":
        return _read_parquet(content, name)
    text = decode_text(content, name, encoding)
    return _read_json_lines(text, name) if kind == "jsonl" else _read_csv(text, name)


def plain_labels(labels: Sequence[str], places: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return labels without blanks around them, whole numbers without a fraction, and notes on what was changed.

    Raises:
        UserError: the labels are real numbers, or a row has several labels.
    """
    notes = []
    plain = {label: label.strip() for label in dict.fromkeys(labels)}
    known = set(plain.values())
    several = {label for label in known if _LIST.fullmatch(label) or _is_several(label, known)}
    are_numbers = all(is_number(label) for label in known if label)
    real = {label for label in known if are_numbers and "." in label and not _WHOLE.fullmatch(label)}
    if several or real:
        at = next(at for at, label in enumerate(labels) if plain[label] in several | real)
        shown = plain[labels[at]][:80]
        if several:
            raise UserError(f"{places[at]} has several labels: {shown!r}.", "Keep one label per image.")
        what = f"{places[at]}: the label {shown!r} is a real number, which is not a class."
        raise UserError(what, "Name the column of classes label.")
    if any(label != stripped for label, stripped in plain.items()):
        changed = sum(label != plain[label] for label in labels)
        notes.append(f"Blanks around {format_count(changed, 'label')} are ignored.")
    if are_numbers and (fraction := next(filter(_WHOLE.fullmatch, sorted(known)), "")):
        notes.append(f"Labels such as {fraction!r} are read as whole numbers.")
        plain = {label: stripped.partition(".")[0] for label, stripped in plain.items()}
    return [plain[label] for label in labels], notes


def _is_several(label: str, known: set[str]) -> bool:
    """Return whether a label consists of several others."""
    parts = {part.strip() for part in _SEVERAL.split(label)}
    return len(parts) > 1 and parts <= known


def decode_text(content: bytes, name: str, encoding: str | None) -> str:
    """Return the text of a file; raise UserError, which names the line, if it has another encoding."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    codec = encoding or ("utf-16" if is_utf16 else "utf-8-sig")
    try:
        text = content.decode(codec)
    except LookupError as error:
        raise UserError(f"There is no encoding {encoding!r}.", "Try utf-8, utf-16, cp1252 or latin-1.") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        shown = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16"}.get(codec, codec)
        raise UserError(
            f"{name}, line {line} is not {shown} text (byte {content[error.start]:#04x}).",
            "Save the file as UTF-8, or specify its encoding with --encoding, for example --encoding cp1252.",
        ) from error
    except UnicodeError as error:
        raise UserError(f"{name} is not {codec} text: {error}.", "Save the file as UTF-8.") from error
    if "\0" in text:
        raise UserError(f"{name} contains NUL characters.", "Save the file as UTF-8, or specify --encoding.")
    return text.removeprefix("\ufeff")


def _plain(column: str) -> str:
    return "_".join(words_of(column))


def is_number(text: str) -> bool:
    """Return whether a text is a number, with blanks around it or not."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_header(names: Sequence[str], name: str) -> None:
    if len(names) > MAX_COLUMNS:
        raise UserError(f"{name} has {len(names):,} columns.", f"The maximum is {MAX_COLUMNS:,}.")
    check_unique([column.lower() for column in names if column], name)


def _check_count(rows: Sequence[object], name: str) -> None:
    if len(rows) > MAX_ROWS:
        raise UserError(f"{name} has more than {MAX_ROWS:,} rows.", f"The maximum is {MAX_ROWS:,}.")


def _read_csv(text: str, name: str) -> Table:
    """Return a table whose separator is a comma, semicolon or tab, or is named in a first line such as ``sep=;``."""
    first, _, rest = text.partition("\n")
    named = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)  # written by Excel
    header_line = rest.partition("\n")[0] if named else first
    delimiter = named[1] if named else max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(rest if named else text, newline=""), delimiter=delimiter, strict=True)
    skipped = int(bool(named))
    rows: list[list[str]] = []
    places = []
    try:
        names = [column.strip() for column in next(reader, [])]
        header = [name or f"column {number}" for number, name in enumerate(names, 1)]  # pandas writes its index so
        if image := next(filter(is_image, header), ""):
            what = f"{name} has no header: its first line contains {image[:80]!r}."
            raise UserError(what, "Add a first line with the names of the columns: path, label.")
        _check_header(header, name)
        line = reader.line_num + skipped
        for row in reader:
            place, line = f"{name}, line {line + 1}", reader.line_num + skipped  # a quoted row may span several lines
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{place} has {format_count(len(row), 'field')}, but there are {len(header)} columns.",
                    "Put values with commas in quotes.",
                )
            rows.append(row)
            places.append(place)
            _check_count(rows, name)
    except csv.Error as error:
        where = f"{name}, line {reader.line_num + skipped}"
        raise UserError(f"{where} cannot be read: {error}.", "Correct the quotes.") from error
    values = zip(*rows, strict=True) if rows else [()] * len(header)
    return Table(name, {column: list(one) for column, one in zip(header, values, strict=True)}, places)


def _read_json_lines(text: str, name: str) -> Table:
    rows: list[dict[str, object]] = []
    places = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines, as a text may contain other line breaks
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}, line {number} is not JSON: {str(error)[:200]}.", "Correct it.") from error
        if not isinstance(row, dict):
            raise UserError(f"{name}, line {number} is not an object.", 'Lines look like {"path": ..., "label": ...}.')
        rows.append(row)
        places.append(f"{name}, line {number}")
        _check_count(rows, name)
    columns = dict.fromkeys(column for row in rows for column in row)
    _check_header(list(columns), name)
    check_cells(len(rows), len(columns), len(text), name)
    nested = {column for row in rows for column, value in row.items() if isinstance(value, list | dict)}
    texts = {
        column: ["" if (value := row.get(column)) is None or value != value else str(value) for row in rows]
        for column in columns
        if column not in nested
    }
    return Table(name, texts, places, dict.fromkeys(sorted(nested), "list or object"))


def _read_parquet(content: bytes, name: str) -> Table:
    columns, others = read_columns(content, name, MAX_ROWS)
    count = len(next(iter(columns.values()), ()))
    texts = {column: _text_values(values) for column, values in columns.items()}
    places = [f"{name}, row {number}" for number in range(1, count + 1)]
    return Table(name, texts, places, {column: str(kind)[:80] for column, kind in others.items()})


def _text_values(column: pa.ChunkedArray) -> list[str]:
    return ["" if value is None or value != value else str(value) for value in column_values(column)]
