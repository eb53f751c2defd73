"""Generate, write and read a folder of tasks: for training, for evaluation, and the truth about injected label noise.

``train.parquet``, ``heldout.parquet`` and, if there are validation tasks, ``validation.parquet`` are task lists
(:mod:`core.tasks.tasklist`); no image occurs in two of them. Training chooses by the validation tasks which step to
keep, and everything that is reported is measured on the held-out tasks.
``planted.parquet`` exists if label noise was injected: image_id, given, true and, for flips within tasks, task_id and
role. ``tasks.json`` records how the tasks were generated.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import pandas as pd
from typing_extensions import TypedDict

from core.data import ImageSet, load_images
from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError
from core.runtime.files import write_json
from core.runtime.replacing import replacing, replacing_folder
from core.runtime.sequence import next_number, number_of
from core.runtime.stored import OPEN, Count, Flag, Number, Text, check_table, read_stored, read_table
from core.tasks.noise import Noise, flip_labels, mislabel_images
from core.tasks.sampling import (
    pool_of,
    sample_tasks,
    split_classes,
    split_images,
    split_official,
    split_validation,
)
from core.tasks.settings import VALIDATION_TASKS, TaskSettings
from core.tasks.tasklist import TaskList, read_tasks, write_tasks

DESCRIPTION = "tasks.json"
_VALIDATION = "validation.parquet"
_PARTS = {"train.parquet", "heldout.parquet", "planted.parquet", _VALIDATION, DESCRIPTION}
_REDRAW = "Restore the file or redraw the tasks."


class DrawnSettings(TypedDict):
    """What a folder of tasks was made by: :class:`core.tasks.settings.TaskSettings`, or the names of a user's lists."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    data: Text
    lists: NotRequired[list[Text]]
    ways: NotRequired[Count]
    shots: NotRequired[Count]
    queries: NotRequired[Count]
    count: NotRequired[Count | None]
    heldout: NotRequired[Count | None]
    heldout_share: NotRequired[Number]
    noise: NotRequired[Text]
    seed: NotRequired[Count]
    skip_small: NotRequired[Flag]
    split: NotRequired[Text]


class TasksFile(TypedDict):
    """``tasks.json``; ``sequence`` counts the folders beside it, so that their order does not depend on a clock."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    settings: DrawnSettings
    data_hash: NotRequired[Text]
    command: NotRequired[Text]
    sequence: NotRequired[Count]


@dataclass(frozen=True)
class TaskFolder:
    """A folder of tasks; ``planted`` is None if no label noise was injected or recorded."""

    data: str
    train: TaskList
    heldout: TaskList
    planted: pd.DataFrame | None
    description: dict
    validation: TaskList | None = None

    @property
    def validation_count(self) -> int:
        """Return the number of validation tasks."""
        return 0 if self.validation is None else len(self.validation)

    def images(self) -> ImageSet:
        """Return the images that the tasks refer to.

        Raises:
            UserError: the images are missing, or their content has changed.
        """
        return load_images(self.data, self.description.get("data_hash", ""))


def generate(settings: TaskSettings, images: ImageSet | None = None) -> TaskFolder:
    """Draw the tasks defined by ``settings``.

    Args:
        images: The images to draw from; None: those that ``settings.data`` names.

    Raises:
        UserError: the images cannot provide what the settings ask for.
    """
    images = load_images(settings.data) if images is None else images
    if settings.split == "auto":
        parts = set() if images.splits is None else set(images.splits)
        is_official = {"train", settings.heldout_split} <= parts
        settings = replace(settings, split="official" if is_official else "images")
    if settings.split != "official":
        split = split_images if settings.split == "images" else split_classes
        return draw_tasks(images, settings, *split(images, settings.heldout_share, _streams(settings)[0]))
    train, heldout = split_official(images, settings.heldout_split)
    validation = np.flatnonzero(images.splits == "val") if settings.heldout_split != "val" else train[:0]
    return draw_tasks(images, settings, train, heldout, validation if validation.size else None)


def draw_tasks(
    images: ImageSet,
    settings: TaskSettings,
    train_positions: np.ndarray,
    heldout_positions: np.ndarray,
    validation_positions: np.ndarray | None = None,
) -> TaskFolder:
    """Draw tasks from the images at these positions of the image set, by all ``settings`` except the split.

    Args:
        validation_positions: None: a part of the images for training (:func:`split_validation`).

    Raises:
        UserError: the images cannot provide what the settings ask for.
    """
    noise = Noise.parse(settings.noise)
    _, train_rng, heldout_rng, noise_rng, validation_rng = _streams(settings)
    needed = settings.shots + settings.queries
    if settings.validation == 0:
        validation_positions = train_positions[:0]
    elif validation_positions is None:
        train_positions, validation_positions = split_validation(
            images,
            train_positions,
            by_classes=not np.intersect1d(images.labels[train_positions], images.labels[heldout_positions]).size,
            share=settings.validation_share,
            ways=settings.ways,
            least=needed,
            rng=validation_rng,
        )
    planted: pd.DataFrame | None = None
    given_labels = images.labels
    if noise.kind in ("images", "lookalike"):
        given_labels, planted = mislabel_images(images, train_positions, noise, noise_rng)
    shape = {"ways": settings.ways, "shots": settings.shots, "queries": settings.queries}
    min_images = needed if settings.skip_small else 0
    train_pool = pool_of(given_labels, train_positions, min_images)
    heldout_pool = pool_of(images.labels, heldout_positions, min_images)
    train = sample_tasks(images, train_pool, **shape, count=settings.count, prefix="t", rng=train_rng)
    if noise.kind == "tasks":
        train, planted = flip_labels(train, noise, noise_rng)
    heldout = sample_tasks(images, heldout_pool, **shape, count=settings.heldout, prefix="h", rng=heldout_rng)
    validation = None
    pool = pool_of(images.labels, validation_positions, needed)
    if len(pool) >= settings.ways:
        count = min(VALIDATION_TASKS, settings.heldout) if settings.validation is None else settings.validation
        validation = sample_tasks(images, pool, **shape, count=count, prefix="v", rng=validation_rng)
    elif settings.validation:
        raise UserError(
            "There are too few images for validation tasks of other images than the training tasks.",
            "Reduce the shots or queries, or draw none: --validation 0.",
        )
    return _folder(images, asdict(settings), train, heldout, validation, planted)


def _streams(settings: TaskSettings) -> list[np.random.Generator]:
    """Return the random generators of the split, the training and held-out tasks, the noise and the validation tasks.

    Each has its own stream, so that more held-out tasks or other noise do not change which training tasks are drawn.
    """
    return [np.random.default_rng(s) for s in np.random.SeedSequence(settings.seed).spawn(5)]


def from_lists(data: str, train: Path, heldout: Path, validation: Path | None = None) -> TaskFolder:
    """Build a folder of tasks from a user's lists, in any format that :func:`core.tasks.tasklist.read_tasks` reads.

    Raises:
        UserError: a list is invalid, or two are incompatible.
    """
    images = load_images(data)
    settings = {"data": data, "lists": [path.name for path in (train, heldout, validation) if path]}
    checks = read_tasks(validation, images) if validation else None
    return _folder(images, settings, read_tasks(train, images), read_tasks(heldout, images), checks)


def _folder(
    images: ImageSet,
    settings: dict[str, Any],
    train: TaskList,
    heldout: TaskList,
    validation: TaskList | None = None,
    planted: pd.DataFrame | None = None,
) -> TaskFolder:
    description = {
        "settings": settings,
        "data_hash": images.hash,
        "train_hash": train.hash,
        "heldout_hash": heldout.hash,
    }
    if validation is not None:
        description["validation_hash"] = validation.hash
    return _checked(TaskFolder(settings["data"], train, heldout, planted, description, validation), "The tasks")


def _checked(folder: TaskFolder, name: str) -> TaskFolder:
    lists = {"training": folder.train, "held-out": folder.heldout}
    if folder.validation is not None:
        lists["validation"] = folder.validation
    for (one, first), (other, second) in combinations(lists.items(), 2):
        if shared := set(first.rows["image_id"]) & set(second.rows["image_id"]):
            raise UserError(
                f"{name}: image {min(shared)!r} occurs in {one} and in {other} tasks.",
                f"The {other} tasks must use other images than the {one} tasks.",
            )
        if first.ways != second.ways:
            raise UserError(
                f"{name}: {one} tasks are {first.ways}-way, {other} tasks {second.ways}-way.",
                "Use the same number of classes per task in all.",
            )
    return folder


def write_folder(tasks: TaskFolder, folder: Path) -> None:
    """Write the folder, which is complete once it has ``tasks.json``; earlier tasks there stay until it is."""
    place = folder.resolve().parent
    with ExitStack() as stack:
        # Until the new folder is in its place, nobody else could see its number.
        sequence = stack.enter_context(next_number(place, lambda: map(tasks_sequence, place.glob(f"*/{DESCRIPTION}"))))
        is_replaced = (folder / DESCRIPTION).exists()
        _write_parts(tasks, stack.enter_context(replacing_folder(folder, _PARTS)) if is_replaced else folder, sequence)


def _write_parts(tasks: TaskFolder, folder: Path, sequence: int) -> None:
    write_tasks(tasks.train, folder / "train.parquet")
    write_tasks(tasks.heldout, folder / "heldout.parquet")
    with disk_errors(folder):
        for name in ("planted.parquet", _VALIDATION):
            (folder / name).unlink(missing_ok=True)  # left by an interrupted attempt
    if tasks.validation is not None:
        write_tasks(tasks.validation, folder / _VALIDATION)
    if tasks.planted is not None:
        with replacing(folder / "planted.parquet") as temporary:
            tasks.planted.to_parquet(temporary, index=False)
    write_json(folder / DESCRIPTION, tasks.description | {"sequence": sequence})


def tasks_sequence(path: Path) -> int:
    """Return the number of a ``tasks.json`` among the folders of tasks beside it; 0 if it has none or is damaged."""
    return number_of(lambda: read_stored(path, TasksFile).get("sequence", 0))


def read_folder(folder: Path) -> TaskFolder:
    """Read a folder of tasks and check it against its images.

    Raises:
        UserError: a file is missing or invalid, or an image occurs in training and held-out tasks.
    """
    description = read_stored(folder / DESCRIPTION, TasksFile, fix=_REDRAW)
    data = description["settings"]["data"]
    images = load_images(data, description.get("data_hash", ""))
    train, heldout = (read_tasks(folder / f"{part}.parquet", images) for part in ("train", "heldout"))
    validation = read_tasks(folder / _VALIDATION, images) if (folder / _VALIDATION).exists() else None
    planted = folder / "planted.parquet"
    noise = _read_planted(planted) if planted.exists() else None
    return _checked(TaskFolder(data, train, heldout, noise, {**description}, validation), str(folder))


def _read_planted(path: Path) -> pd.DataFrame:
    """Return the table of injected label noise; flips within tasks also have the task and the role."""
    table = read_table(path, {"image_id": "text", "given": "text", "true": "text"}, may_be_empty=True, fix=_REDRAW)
    if {"task_id", "role"} & set(table):
        check_table(table, {"task_id": "text", "role": "text"}, path, may_be_empty=True, fix=_REDRAW)
    return table
