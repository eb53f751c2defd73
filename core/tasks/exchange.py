"""Write task lists for learn2learn, torchmeta and easyfsl, and read them back as the same tasks.

A file is JSON: ``{"format": "tasklens/LIBRARY-tasks/1", "image_set": NAME, "positions": WHOSE, "left_out": [IMAGE_ID],
"tasks": [...]}``, with one task per line. The type of a file is determined by ``format``, never by its name.

None of these libraries has a task file format, so a task is the smallest object that the library's own classes accept
unchanged: fields are named after the arguments and attributes that they become (``docs/exchange.md``). Images are
identified by position; their ids are stored to check that the data set is the same. ``positions`` says whose positions
they are (:mod:`core.data.numbering`): for class folders those of ``ImageFolder``, as the other library will load them.
Rows of images that ``ImageFolder`` does not list are left out. Labels are those of the rows, which may differ from the
classes of the images.
"""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from core.data import ImageSet
from core.data.numbering import IMAGE_FOLDER, IMAGE_SET, numbering, numbering_text, positions_in
from core.runtime.errors import UserError
from core.runtime.files import write_text_atomically
from core.runtime.progress import format_count
from core.tasks.changes import Changes, cleaned
from core.tasks.tasklist import COLUMNS, TaskList, from_rows


class Row(NamedTuple):
    """One image in one role of a task."""

    position: int  # of the image, in what the file says
    image_id: str
    label: int
    name: str = ""  # of the row in errors


class _Form(BaseModel):
    """A model that validates strictly: no strings for numbers, no fractions for integers. Other fields are ignored."""

    model_config = ConfigDict(strict=True)


class _Task(_Form):
    task_id: str
    classes: list[str]  # by label


class Learn2LearnTask(_Task):
    """A task for learn2learn.

    ``indices`` become the ``DataDescription``s of a ``Taskset``; ``adaptation_indices`` are positions in this list.
    Support and query rows alternate while both remain: with as many query as support rows, this is the order that the
    examples of learn2learn expect (``adaptation_indices[np.arange(shots * ways) * 2] = True``).
    """

    indices: list[int]
    labels: list[int]
    adaptation_indices: list[int]
    image_ids: list[str]

    @classmethod
    def of(cls, task_id: str, classes: list[str], support: list[Row], query: list[Row], images: ImageSet) -> Self:
        """Build the task from its rows."""
        pairs = zip_longest([(row, True) for row in support], [(row, False) for row in query])
        order = [entry for pair in pairs for entry in pair if entry is not None]
        return cls(
            task_id=task_id,
            classes=classes,
            adaptation_indices=[position for position, (_, is_support) in enumerate(order) if is_support],
            **_lists([row for row, _ in order]),
        )

    def rows(self, where: str, images: ImageSet) -> tuple[list[Row], list[Row]]:
        """Return the support and query rows of this task, which errors call ``where``.

        Raises:
            UserError: the lists differ in length, or an adaptation index is out of range or out of order.
        """
        rows = _rows(where, "", self.indices, self.labels, self.image_ids)
        positions = self.adaptation_indices
        if positions != sorted(set(positions)) or (positions and not 0 <= positions[0] <= positions[-1] < len(rows)):
            raise UserError(
                f"{where}: adaptation_indices are not ascending positions of its {len(rows)} rows.",
                "Positions count from 0.",
            )
        in_support = set(positions)
        return [rows[n] for n in positions], [row for n, row in enumerate(rows) if n not in in_support]


class TorchmetaSplit(_Form):
    """A support or query set for torchmeta: ``indices`` are those of a ``SubsetTask``, ``labels`` its targets."""

    indices: list[int]
    labels: list[int]
    image_ids: list[str]


class TorchmetaTask(_Task):
    """A task for torchmeta; ``train`` and ``test`` are the keys of the ``OrderedDict`` that represents a task there."""

    train: TorchmetaSplit
    test: TorchmetaSplit

    @classmethod
    def of(cls, task_id: str, classes: list[str], support: list[Row], query: list[Row], images: ImageSet) -> Self:
        """Build the task from its rows."""
        train, test = (TorchmetaSplit(**_lists(rows)) for rows in (support, query))
        return cls(task_id=task_id, classes=classes, train=train, test=test)

    def rows(self, where: str, images: ImageSet) -> tuple[list[Row], list[Row]]:
        """Return the support and query rows of this task, which errors call ``where``.

        Raises:
            UserError: the lists of a set differ in length.
        """
        train, test = self.train, self.test
        support = _rows(where, "train ", train.indices, train.labels, train.image_ids)
        return support, _rows(where, "test ", test.indices, test.labels, test.image_ids)


class EasyfslTask(_Task):
    """A task for easyfsl: the five outputs of ``TaskSampler.episodic_collate_fn``, with positions instead of images.

    ``true_class_ids[label]`` is the number of a class in the image set, whose classes are sorted by name.
    """

    support_images: list[int]
    support_labels: list[int]
    query_images: list[int]
    query_labels: list[int]
    true_class_ids: list[int]
    support_image_ids: list[str]
    query_image_ids: list[str]

    @classmethod
    def of(cls, task_id: str, classes: list[str], support: list[Row], query: list[Row], images: ImageSet) -> Self:
        """Build the task from its rows."""
        return cls(
            task_id=task_id,
            classes=classes,
            true_class_ids=[images.class_names.index(name) for name in classes],
            **_lists(support, "support_images", "support_labels", "support_image_ids"),
            **_lists(query, "query_images", "query_labels", "query_image_ids"),
        )

    def rows(self, where: str, images: ImageSet) -> tuple[list[Row], list[Row]]:
        """Return the support and query rows of this task, which errors call ``where``.

        Raises:
            UserError: the lists differ in length, or ``true_class_ids`` do not match ``classes``.
        """
        class_of = dict(enumerate(images.class_names))
        if [class_of.get(number) for number in self.true_class_ids] != self.classes:
            raise UserError(
                f"{where}: true_class_ids {self.true_class_ids} are not the classes {self.classes} of {images.name}.",
                "Load the images that the file was written for.",
            )
        support = _rows(where, "support ", self.support_images, self.support_labels, self.support_image_ids)
        return support, _rows(where, "query ", self.query_images, self.query_labels, self.query_image_ids)


Task = Learn2LearnTask | TorchmetaTask | EasyfslTask
FORMS: dict[str, type[Task]] = {"learn2learn": Learn2LearnTask, "torchmeta": TorchmetaTask, "easyfsl": EasyfslTask}
LIBRARIES = tuple(FORMS)
_FORMAT_OF = {library: f"tasklens/{library}-tasks/1" for library in LIBRARIES}
_LIBRARY_OF = {value: library for library, value in _FORMAT_OF.items()}
_UNLISTED_FIX = (
    "Convert such images to PNG and import the folder again, or export parquet, csv or json, which name images by id."
)


def write_foreign(tasks: TaskList, images: ImageSet, library: str, path: Path) -> tuple[str, ...]:
    """Write ``tasks`` for ``library``, without rows of weight 0; the order and labels of the other rows are preserved.

    For images in class folders, positions are those in ``ImageFolder``. Rows of images that it does not list are left
    out, and tasks whose query images it does not list.

    Args:
        images: The set whose positions the file contains.

    Returns:
        Sentences for the user: whose positions they are, and what was left out.

    Raises:
        UserError: the library is unknown, a weight is neither 0 nor 1, a class of a task would lose all support, or
            an image or class is not in the set.
    """
    if library not in LIBRARIES:
        raise UserError(f"There is no format {library!r}.", f"Use {', '.join(LIBRARIES)}.")
    _check_weights(tasks, library)
    checked = from_rows(tasks.rows, source="the task list", images=images)
    active = cleaned(checked, Changes(), drop_rows=True)
    whose = numbering(images)
    positions = positions_in(images, whose)
    listed, left_out, notes = _listed(active, images, positions)
    notes = (f"Positions are those of {numbering_text(images, whose)}.", *notes)
    lines = []
    for task_id, rows in listed.groupby("task_id", sort=False):
        classes = [name for _, name in sorted(set(zip(rows["label"], rows["class"], strict=True)))]
        support, query = (
            [
                Row(int(positions[images.index[image_id]]), image_id, label)
                for image_id, label in zip(part["image_id"], part["label"].tolist(), strict=True)
            ]
            for part in (rows[rows["role"] == "support"], rows[rows["role"] == "query"])
        )
        task = FORMS[library].of(str(task_id), classes, support, query, images)
        lines.append(json.dumps(task.model_dump(), ensure_ascii=False))
    fields = {"format": _FORMAT_OF[library], "image_set": images.name, "positions": whose, "left_out": left_out}
    head = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items())
    joined = ",\n".join(lines)
    write_text_atomically(path, f'{{{head}, "tasks": [\n{joined}\n]}}\n')
    return notes


def _listed(
    tasks: TaskList, images: ImageSet, positions: np.ndarray
) -> tuple[pd.DataFrame, list[str], tuple[str, ...]]:
    """Return the rows of images that have a position, the ids of the other images, and sentences on them.

    Raises:
        UserError: a class of a task would lose all support, or no task would remain.
    """
    rows = tasks.rows
    is_listed = np.array([positions[images.index[image_id]] >= 0 for image_id in rows["image_id"]], bool)
    if is_listed.all():
        return rows, [], ()
    left_out = list(dict.fromkeys(rows["image_id"][~is_listed]))
    kept = rows[is_listed]
    kept = kept[kept["task_id"].isin(kept["task_id"][kept["role"] == "query"])]
    tasks_kept = list(dict.fromkeys(kept["task_id"]))
    have = pd.MultiIndex.from_frame(kept[kept["role"] == "support"][["task_id", "label"]])
    need = rows[(rows["role"] == "support") & rows["task_id"].isin(tasks_kept)]
    lost = need[~pd.MultiIndex.from_frame(need[["task_id", "label"]]).isin(have)]
    if not tasks_kept or len(lost):
        row = lost.iloc[0] if len(lost) else rows[~is_listed].iloc[0]
        raise UserError(
            f"Task {row['task_id']!r} needs the image {row['image_id']!r}, which torchvision's ImageFolder does not "
            "list.",
            _UNLISTED_FIX,
        )
    dropped = len(set(rows["task_id"])) - len(tasks_kept)
    also = f", and with them {format_count(dropped, 'task')} without query images" if dropped else ""
    note = (
        f"Left out: {format_count(len(rows) - len(kept), 'row')} of {format_count(len(left_out), 'image')} that "
        f"torchvision's ImageFolder does not list, such as {left_out[0]}{also}. {_UNLISTED_FIX}"
    )
    return kept, left_out, (note,)


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
    whose = document.get("positions", IMAGE_SET)  # earlier versions wrote no other
    if whose not in (IMAGE_FOLDER, IMAGE_SET):
        raise UserError(f"{source}: positions is {whose!r}.", f"Use {IMAGE_FOLDER!r} or {IMAGE_SET!r}.")
    entries = document.get("tasks")
    if not isinstance(entries, list):
        raise UserError(f"{source}: tasks is not a list.", "Write the file again.")
    at = _ids_by_position(images, whose)
    place = f"{images.name} in torchvision's ImageFolder" if whose == IMAGE_FOLDER else images.name
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
        support, query = task.rows(where, images)
        if task.task_id in seen:
            raise UserError(f"{source}: the task {task.task_id!r} occurs twice.", "Give every task a unique id.")
        seen.add(task.task_id)
        _check(where, len(task.classes), support, query, at, place)
        for role, rows in (("support", support), ("query", query)):
            table += [(task.task_id, role, row.image_id, row.label, task.classes[row.label]) for row in rows]
            names += [f"task {task.task_id!r}, {row.name}" for row in rows]
    rows_of_tasks = pd.DataFrame(table, columns=[*COLUMNS[:-1]], dtype=object)
    return from_rows(rows_of_tasks, source=source, images=images, row_names=names)


def _check_weights(tasks: TaskList, library: str) -> None:
    fractional = np.flatnonzero(~tasks.rows["weight"].isin([0.0, 1.0]))
    if fractional.size:
        row = tasks.rows.iloc[fractional[0]]
        raise UserError(
            f"Row {fractional[0] + 1} of the task list (task {row['task_id']!r}, {row['role']}, image "
            f"{row['image_id']!r}) has weight {row['weight']}, but {library} does not support weights.",
            "Use only weights 0 and 1, or write parquet, csv or json.",
        )


def _ids_by_position(images: ImageSet, whose: str) -> dict[int, str] | None:
    """Return the image id at every position; None if the image set does not know these positions."""
    if whose == IMAGE_FOLDER and images.positions is None:
        return None
    pairs = zip(positions_in(images, whose).tolist(), images.ids, strict=True)
    return {position: str(image_id) for position, image_id in pairs if position >= 0}


def _check(task: str, ways: int, support: list[Row], query: list[Row], at: dict[int, str] | None, place: str) -> None:
    """Check that positions and ids agree and labels match the classes; ``from_rows`` checks everything else.

    Args:
        at: The image id at every position; None if only the ids can be checked.
        place: Where the positions are, for errors.
    """
    for row in [*support, *query]:
        where = f"{task}, {row.name}"
        if not 0 <= row.label < ways:
            raise UserError(
                f"{where}: label {row.label} is not below {ways}, the number of classes.", "Labels count from 0."
            )
        if row.position < 0 or (at is not None and row.position not in at):
            raise UserError(
                f"{where}: position {row.position} is not that of an image of {place}.",
                "Load the images that the file was written for.",
            )
        if at is not None and (image_id := at[row.position]) != row.image_id:
            raise UserError(
                f"{where}: position {row.position} of {place} is image {image_id!r}, "
                f"but the file names {row.image_id!r}.",
                "Load the images that the file was written for, in the same order, or write the file again.",
            )
    if missing := set(range(ways)) - {row.label for row in support}:
        raise UserError(
            f"{task}: label {min(missing)} has no support image.", "Every class of a task needs at least one."
        )


def _error_text(error: ValidationError, where: str) -> str:
    """Return the text of the first validation error of a task."""
    first = error.errors(include_url=False)[0]
    place = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return f"{place} is missing." if first["type"] == "missing" else f"{place}: {first['msg']}."


def _lists(
    rows: list[Row], positions: str = "indices", labels: str = "labels", image_ids: str = "image_ids"
) -> dict[str, Any]:
    """Return the positions, labels and image ids of rows, as fields of these names."""
    return {
        positions: [row.position for row in rows],
        labels: [row.label for row in rows],
        image_ids: [row.image_id for row in rows],
    }


def _rows(where: str, part: str, positions: list[int], labels: list[int], image_ids: list[str]) -> list[Row]:
    """Return the rows of parallel lists; errors count rows from 1."""
    if not len(positions) == len(labels) == len(image_ids):
        raise UserError(
            f"{where}: its {part}rows have {len(positions)} positions, {len(labels)} labels and "
            f"{len(image_ids)} image ids.",
            "Every row needs one of each.",
        )
    columns = zip(positions, image_ids, labels, strict=True)
    return [Row(*cells, f"{part}row {number}") for number, cells in enumerate(columns, 1)]
