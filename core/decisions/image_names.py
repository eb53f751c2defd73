"""Find the images of a set that a table of another tool names, by their ids or by the paths of their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.data.readers.tables import PATH_NAMES, usual_columns
from core.runtime.errors import UserError

NAME_COLUMNS = ("image_id", *(name for name in PATH_NAMES if name not in ("image_id", "id")))
"""Usual names of a column of image ids or files; a column ``id`` may number the rows."""
_NONE, _SEVERAL = -1, -2  # in place of a position


def name_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns with one of :data:`NAME_COLUMNS`, in the order of these."""
    return usual_columns([str(column) for column in table.columns], NAME_COLUMNS)


def positions_of_names(names: pd.Series, source: str, what: str, images: ImageSet) -> tuple[np.ndarray, str]:
    """Return the position in the image set of the image that each row names.

    A name is an image id; else a path that ends with one, such as ``/home/me/data/cat/1.jpg`` with ``cat/1.jpg``; else
    the end of one, such as ``1.jpg`` of ``cat/1.jpg``. One of these must hold for all rows, and for one image each.

    Args:
        what: What holds the names, in errors, such as the name of the column.

    Returns:
        ``(n,)`` int64, and a sentence for the user on how the names were matched, empty if they are ids.

    Raises:
        UserError: a row names no image, or more than one.
    """
    ids = ["" if value is None or value is pd.NA or value != value else str(value) for value in names]
    paths = [name.replace("\\", "/") for name in ids]
    rules: tuple[tuple[Callable[[], list[int]], str], ...] = (
        (lambda: [images.index.get(name, _NONE) for name in ids], ""),
        (lambda: _ending_with_ids(paths, images), f"images found by the ids at the end of the paths in {what}"),
        (lambda: _ends_of_ids(paths, images), f"images found by the ids that end with the names in {what}"),
    )
    tried = []
    for find, note in rules:
        tried.append(find())
        if min(tried[-1], default=0) >= 0:
            return np.array(tried[-1], np.int64), note
    found = max(tried, key=lambda found: sum(position != _NONE for position in found))
    row = next(row for row, position in enumerate(found) if position < 0)
    problem = "names several images of" if found[row] == _SEVERAL else "is not in"
    raise UserError(
        f"{source}, row {row + 1}: {what} {ids[row]!r} {problem} the image set {images.name}.",
        f"Use image ids such as {images.ids[0]}, or delete the row.",
    )


def check_unique(positions: np.ndarray, source: str, what: str) -> np.ndarray:
    """Return the ``(n,)`` positions of images; raise UserError if two rows have the same."""
    order = np.argsort(positions, kind="stable")
    twice = np.flatnonzero(np.diff(positions[order]) == 0)
    if twice.size:
        raise UserError(
            f"{source}, row {order[twice[0] + 1] + 1}: {what} names the same image as row {order[twice[0]] + 1}.",
            "Keep one of the rows.",
        )
    return positions


def with_image_ids(table: pd.DataFrame, source: str, images: ImageSet) -> tuple[pd.DataFrame, list[str]]:
    """Return a table of decisions with a column image_id, and sentences for the user.

    If the table names neither images nor tasks, the ids are those of the images in its column of file names.

    Raises:
        UserError: a row of that column names no image, or more than one.
    """
    columns = name_columns(table)
    if {"image_id", "task_id"} & {*table.columns} or not columns:
        return table, []
    positions, note = positions_of_names(table[columns[0]], source, columns[0], images)
    return table.assign(image_id=images.ids[positions]), [note] if note else []


def _ending_with_ids(paths: Sequence[str], images: ImageSet) -> list[int]:
    """Return the position of the image whose id is the end of each path, after a slash or an equals sign."""
    found = []
    for path in paths:
        starts = [0, *(match.end() for match in re.finditer("[/=]", path))]
        ends = {images.index[path[start:]] for start in starts if path[start:] in images.index}
        found.append(_only(ends))
    return found


def _ends_of_ids(paths: Sequence[str], images: ImageSet) -> list[int]:
    """Return the position of the image whose id ends with each path, after a slash."""
    named: dict[str, set[int]] = {path: set() for path in paths if path}
    for position, image_id in enumerate(images.ids):
        for start in (0, *(match.end() for match in re.finditer("/", image_id))):
            if image_id[start:] in named:
                named[image_id[start:]].add(position)
    return [_only(named.get(path, set())) for path in paths]


def _only(positions: set[int]) -> int:
    return _SEVERAL if len(positions) > 1 else next(iter(positions), _NONE)
