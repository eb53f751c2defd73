"""Define a list of few-shot tasks and its table format, which users may write by hand.

One row is one image in one role of one task:

========= ======= ==========================================================================
column    type    meaning
========= ======= ==========================================================================
task_id   string  names the task; rows of one task are contiguous
role      string  ``support`` (the model adapts to it) or ``query`` (its loss is measured)
image_id  string  id of the image in the image set; at most once in each role of a task
label     int     class within the task, 0 ... ways - 1, the same number of ways in all tasks
class     string  the class that this label stands for in this task, as given (possibly wrong)
weight    float   weight of this row's loss; 1 as trained, 0 removed; optional, default 1
========= ======= ==========================================================================

Losses are means over the rows of a role, **including rows of weight 0** (see :mod:`core.maml.objective`), so
a removed row that stays in the table with weight 0 is the exact counterpart of what the engine predicts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pandas as pd
from cachetools import LRUCache, cached

from core.data import ImageSet
from core.data.listing import MAX_CHARACTERS
from core.runtime.csv_files import unescape_formulas, write_csv
from core.runtime.errors import UserError
from core.runtime.errors import shown as quoted
from core.runtime.hashing import content_hash
from core.runtime.replacing import replacing
from core.tasks.tables import FORMATS as FORMATS
from core.tasks.tables import parse_table, read_content, unknown_format_error

COLUMNS = ("task_id", "role", "image_id", "label", "class", "weight")
ROLES = ("support", "query")
KEY = ["task_id", "role", "image_id"]
_MAX_INTEGER = 1 << 64
_SURROGATE = re.compile("[\ud800-\udfff]")  # what UTF-8 cannot encode


@dataclass(frozen=True, eq=False)
class TaskList:
    """A validated list of tasks. Build it with :func:`from_rows` or :func:`read_tasks`.

    Attributes:
        rows: The table above; rows of a task are contiguous, support before query.
    """

    rows: pd.DataFrame

    @cached_property
    def task_ids(self) -> list[str]:
        """Return every task id once, in the order of the table."""
        return list(dict.fromkeys(self.rows["task_id"]))

    @cached_property
    def ways(self) -> int:
        """Return the number of classes per task."""
        return int(self.rows["label"].max()) + 1

    @cached_property
    def hash(self) -> str:
        """Return a hash of the content."""
        return content_hash(*(self.rows[column].tolist() for column in COLUMNS))

    def __len__(self) -> int:
        return len(self.task_ids)

    def select(self, task_ids: list[str]) -> TaskList:
        """Return the tasks with these ids, in their present order; raise UserError if an id is not in the list."""
        unknown = sorted(set(task_ids) - set(self.task_ids))
        if unknown:
            raise UserError(f"There is no task {unknown[0]!r}.", f"Ids look like {self.task_ids[0]!r}.")
        return TaskList(self.rows[self.rows["task_id"].isin(task_ids)].reset_index(drop=True))


def from_rows(
    rows: pd.DataFrame, *, source: str, images: ImageSet | None = None, row_names: Sequence[str] = ()
) -> TaskList:
    """Validate a table and convert it to the standard form.

    Args:
        rows: The columns above, in any order; others are dropped.
        source: Name of the table in errors, usually the file name.
        images: If given, image ids and class names are checked against it.
        row_names: Names of the rows in errors; by default rows are counted from 1, without the header.

    Raises:
        UserError: names the first offending row and field.
    """
    if not len(rows):
        raise UserError(f"{source}: the task list is empty.", "It needs at least one task.")
    missing = [column for column in COLUMNS if column not in rows.columns and column != "weight"]
    if missing:
        raise UserError(f"{source}: the column {missing[0]!r} is missing.", f"A task list has: {', '.join(COLUMNS)}.")

    def check(bad: pd.Series, values: pd.Series, problem: str, fix: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            value = values.iloc[row]
            shown = value.item() if isinstance(value, np.generic) else value
            place = row_names[row] if row_names else f"row {row + 1}"
            if values.isna().iloc[row]:
                raise UserError(f"{source}, {place}: {values.name} is missing.", "Fill it in.")
            raise UserError(f"{source}, {place}: {values.name} {quoted(shown)} {problem}.", fix)

    rows = rows.reset_index(drop=True)
    rows = rows if "weight" in rows.columns else rows.assign(weight=1.0)
    table = pd.DataFrame({column: _convert(rows[column], check) for column in COLUMNS})
    task_id, role, image_id, label, class_, weight = (table[column] for column in COLUMNS)
    check(task_id.str.strip() == "", task_id, "is empty", "Name every task.")
    check(~role.isin(ROLES), role, "is not a role", "Use 'support' or 'query'.")
    check(label < 0, label, "is negative", "Labels count from 0.")
    # Every task has support images of all labels.
    check(label >= len(table), label, "is not below the number of rows", "Labels count from 0.")
    check(~np.isfinite(weight) | (weight < 0), weight, "is not a weight", "Use a number, 0 or more.")
    check(table.duplicated(KEY), image_id, "occurs twice in one role of its task", "Keep one of the rows.")
    if images is not None:
        unknown = f"is not in the image set {images.name}"
        check(~image_id.isin(images.index), image_id, unknown, "Check the id, or load the images it belongs to.")
        check(~class_.isin(images.class_names), class_, f"is not a class of {images.name}", "Check its spelling.")
    rank = pd.factorize(task_id)[0] * 2 + (role == "query").to_numpy()
    table = table.iloc[np.argsort(rank, kind="stable")].reset_index(drop=True)
    _check_tasks(table, source)
    return TaskList(table)


def _convert(values: pd.Series, check: Callable[[pd.Series, pd.Series, str, str], None]) -> pd.Series:
    """Return one column in its standard type."""
    if values.name in ("label", "weight"):
        is_label = values.name == "label"
        scalar = values.astype(object).where(values.map(_is_number_or_text))
        number = pd.Series(pd.to_numeric(scalar, errors="coerce").to_numpy(np.float64, na_value=np.nan))
        is_flag = values.astype(object).map(lambda value: isinstance(value, bool | np.bool_))
        bad = number.isna() | (is_label & (is_flag | (number.abs() >= 2**63) | (number % 1 != 0)))
        check(bad, values, f"is not a {'whole number' if is_label else 'number'}", "Correct it.")
        return number.astype(np.int64 if is_label else np.float64)
    check(values.isna() | ~values.astype(object).map(_is_name), values, "is not text", "Correct it.")
    texts = values.map(str).astype(object)
    length = f"has more than {MAX_CHARACTERS:,} characters"
    check(texts.str.len() > MAX_CHARACTERS, texts, length, "Shorten it.")
    return texts


def _is_number_or_text(value: Any) -> bool:
    """Return whether a value is no list or object, which JSON may contain, and no integer that a float cannot hold."""
    return bool(np.isscalar(value)) and not (isinstance(value, int) and abs(value) > _MAX_INTEGER)


def _is_name(value: Any) -> bool:
    """Return whether a value is a name: text that UTF-8 can encode, or a number, which tools make of names like 007."""
    if isinstance(value, str):
        return _SURROGATE.search(value) is None
    return isinstance(value, int | float | np.generic)


def _check_tasks(table: pd.DataFrame, source: str) -> None:
    ways = int(table["label"].max()) + 1
    classes = table.groupby(["task_id", "label"], sort=False)["class"].nunique()
    for task_id, label in classes.index[classes > 1]:
        names = table[(table["task_id"] == task_id) & (table["label"] == label)]["class"].unique()
        raise UserError(
            f"{source}, task {task_id!r}: label {label} stands for both {names[0]!r} and {names[1]!r}.",
            "Within a task, every label stands for one class.",
        )
    roles = table.groupby("task_id", sort=False)["role"].nunique()
    for task_id in roles.index[roles < len(ROLES)]:
        existing = table.loc[table["task_id"] == task_id, "role"].iloc[0]
        missing = "query" if existing == "support" else "support"
        raise UserError(f"{source}, task {task_id!r} has no {missing} rows.", "A task needs both roles.")
    support = table[table["role"] == "support"].groupby("task_id", sort=False)["label"].nunique()
    for task_id in support.index[support < ways]:
        labels = table[(table["task_id"] == task_id) & (table["role"] == "support")]["label"]
        raise UserError(
            f"{source}, task {task_id!r}: label {min(set(range(ways)) - set(labels))} has no support image.",
            f"Every task needs support images of all {ways} classes.",
        )


# Every action and every page opens its workspace, and with it the same two lists: they are validated once.
@cached(
    LRUCache(2**28, getsizeof=lambda tasks: int(tasks.rows.memory_usage(deep=True).sum())),
    key=lambda path, content, images: (path.name, content_hash(content), images.hash if images else None),
    lock=RLock(),
)
def _parse(path: Path, content: bytes, images: ImageSet | None) -> TaskList:
    from core.tasks.exchange import from_foreign  # avoids a circular import

    table = parse_table(path, content)
    if isinstance(table, dict):
        return from_foreign(table, source=path.name, images=images)
    if path.suffix == ".csv":
        table = unescape_formulas(table)
    return from_rows(table, source=path.name, images=images)


def read_tasks(path: Path, images: ImageSet | None = None) -> TaskList:
    """Read a task list from ``.parquet``, ``.csv`` or ``.json``: a list of row objects, or a list for another library.

    Args:
        images: If given, image ids and class names are checked against it. Lists for other libraries
            (:mod:`core.tasks.exchange`) need it, because they name images by position.

    Raises:
        UserError: the file is missing, of another format, unreadable, or does not hold a valid task list.
    """
    return TaskList(_parse(path, read_content(path), images).rows.copy())  # the caller may change its rows


def write_tasks(tasks: TaskList, path: Path) -> None:
    """Write a task list in the format of the file name's extension; :func:`read_tasks` reads it back."""
    with replacing(path) as temporary:
        match path.suffix:
            case ".parquet":
                tasks.rows.to_parquet(temporary, index=False)
            case ".csv":
                write_csv(tasks.rows, temporary)
            case ".json":
                rows = tasks.rows.to_dict(orient="records")  # DataFrame.to_json rounds the weights
                temporary.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")
            case _:
                raise unknown_format_error(path)
