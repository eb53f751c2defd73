"""Write task lists for other libraries, and read them back as the same episodes.

A file is JSON: ``{"format": "tasklens/LIBRARY-tasks/1", "image_set": NAME, "tasks": [...]}``, with one task per line in
the form that :mod:`core.tasks.libraries` defines. The type of a file is determined by ``format``, never by its name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from core.data import ImageSet
from core.runtime.errors import UserError
from core.runtime.files import write_text_atomically
from core.tasks.changes import Changes, cleaned
from core.tasks.libraries import FORMS, LIBRARIES, Episode, Row
from core.tasks.tasklist import COLUMNS, TaskList, from_rows

_FORMAT_OF = {library: f"tasklens/{library}-tasks/1" for library in LIBRARIES}
_LIBRARY_OF = {value: library for library, value in _FORMAT_OF.items()}


def write_foreign(tasks: TaskList, images: ImageSet, library: str, path: Path) -> None:
    """Write ``tasks`` for ``library``, without rows of weight 0; the order and labels of the other rows are preserved.

    Args:
        images: The set whose order the positions in the file refer to.

    Raises:
        UserError: the library is unknown, a weight is neither 0 nor 1, a class of a task would lose all support, or
            an image or class is not in the set.
    """
    if library not in LIBRARIES:
        raise UserError(f"There is no format {library!r}.", f"Use {', '.join(LIBRARIES)}.")
    _check_weights(tasks, library)
    checked = from_rows(tasks.rows, source="the task list", images=images)
    entries = [FORMS[library].of(e, images) for e in _episodes(cleaned(checked, Changes(), drop_rows=True), images)]
    lines = ",\n".join(json.dumps(entry.model_dump(), ensure_ascii=False) for entry in entries)
    head = f'"format": "{_FORMAT_OF[library]}", "image_set": {json.dumps(images.name)}'
    write_text_atomically(path, f'{{{head}, "tasks": [\n{lines}\n]}}\n')


def from_foreign(document: dict[str, Any], *, source: str, images: ImageSet | None) -> TaskList:
    """Return the task list in a parsed JSON object that :func:`write_foreign` wrote.

    Args:
        source: Name of the document in errors, usually the file name.
        images: The set that the positions in it refer to.

    Raises:
        UserError: names the first invalid task, row or field.
    """
    format = document.get("format")
    if not isinstance(format, str) or format not in _LIBRARY_OF:
        raise UserError(
            f"{source} is a JSON object " + (f"of format {format!r}." if "format" in document else "without a format."),
            f"A task list is a list of row objects, or an object whose format is one of: {', '.join(_LIBRARY_OF)}.",
        )
    library = _LIBRARY_OF[format]
    if images is None:
        raise UserError(
            f"{source} is a task list for {library}, which refers to images by position.", "Specify its images too."
        )
    entries = document.get("tasks")
    if not isinstance(entries, list):
        raise UserError(f"{source}: tasks is not a list.", "Write the file again.")
    seen: set[str] = set()
    table: list[tuple[str, str, str, int, str]] = []
    names: list[str] = []
    for number, entry in enumerate(entries):
        try:
            task = FORMS[library].model_validate(entry)
        except ValidationError as error:
            raise UserError(
                _error_text(error, f"{source}: tasks[{number}]"), "Correct it or write it again."
            ) from error
        where = f"{source}, task {task.task_id!r}"
        episode = task.episode(where, images)
        if task.task_id in seen:
            raise UserError(f"{source}: the task {task.task_id!r} occurs twice.", "Give every task a unique id.")
        seen.add(task.task_id)
        _check(episode, where, images)
        for role, rows in (("support", episode.support), ("query", episode.query)):
            table += [(task.task_id, role, row.image_id, row.label, task.classes[row.label]) for row in rows]
            names += [f"task {task.task_id!r}, {row.name}" for row in rows]
    rows_of_tasks = pd.DataFrame(table, columns=[*COLUMNS[:-1]], dtype=object)
    return from_rows(rows_of_tasks, source=source, images=images, row_names=names)


def _episodes(tasks: TaskList, images: ImageSet) -> list[Episode]:
    episodes = []
    for task_id, rows in tasks.rows.groupby("task_id", sort=False):
        class_of = dict(zip(rows["label"].tolist(), rows["class"], strict=True))
        parts = [
            [Row(images.index[i], i, n) for i, n in zip(part["image_id"], part["label"].tolist(), strict=True)]
            for part in (rows[rows["role"] == "support"], rows[rows["role"] == "query"])
        ]
        episodes.append(Episode(str(task_id), [class_of[label] for label in sorted(class_of)], *parts))
    return episodes


def _check_weights(tasks: TaskList, library: str) -> None:
    fractional = np.flatnonzero(~tasks.rows["weight"].isin([0.0, 1.0]))
    if fractional.size:
        row = tasks.rows.iloc[fractional[0]]
        raise UserError(
            f"Row {fractional[0] + 1} of the task list (task {row['task_id']!r}, {row['role']}, image "
            f"{row['image_id']!r}) has weight {row['weight']}, but {library} does not support weights.",
            "Use only weights 0 and 1, or write parquet, csv or json.",
        )


def _check(episode: Episode, task: str, images: ImageSet) -> None:
    """Check that positions and ids match the image set and labels the classes; ``from_rows`` checks everything else."""
    for row in [*episode.support, *episode.query]:
        where = f"{task}, {row.name}"
        if not 0 <= row.label < len(episode.classes):
            raise UserError(
                f"{where}: label {row.label} is not below {len(episode.classes)}, the number of classes.",
                "Labels count from 0.",
            )
        if not 0 <= row.position < len(images):
            raise UserError(
                f"{where}: position {row.position} is not in the image set {images.name}, which has {len(images)}.",
                "Load the images that the file was written for.",
            )
        if (image_id := str(images.ids[row.position])) != row.image_id:
            raise UserError(
                f"{where}: position {row.position} of {images.name} is image {image_id!r}, "
                f"but the file names {row.image_id!r}.",
                "Load the images that the file was written for, in the same order.",
            )
    if missing := set(range(len(episode.classes))) - {row.label for row in episode.support}:
        raise UserError(
            f"{task}: label {min(missing)} has no support image.",
            "Every class of a task needs at least one.",
        )


def _error_text(error: ValidationError, where: str) -> str:
    """Return the text of the first validation error of a task."""
    first = error.errors(include_url=False)[0]
    place = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return f"{place} is missing." if first["type"] == "missing" else f"{place}: {first['msg']}."
