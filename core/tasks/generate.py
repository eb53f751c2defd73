"""One folder of tasks: what a model trains on, what it is judged on, and the truth about planted noise.

``train.parquet`` and ``heldout.parquet`` are task lists (:mod:`core.tasks.tasklist`); no image occurs in
both. ``planted.parquet`` is there when noise was planted: image_id, given, true and, for flips within tasks,
task_id and role. ``tasks.json`` says how all of it was made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core.data import load_images
from core.errors import UserError
from core.files import read_json, replacing, write_json
from core.tasks.noise import Noise, flip_labels, mislabel_images
from core.tasks.sampling import pool_of, sample_tasks, split_classes, split_images
from core.tasks.tasklist import TaskList, read_tasks, write_tasks


@dataclass(frozen=True)
class TaskSettings:
    """How to draw a folder of tasks; the same settings give the same tasks.

    Attributes:
        data: Name of the image source.
        ways, shots, queries: Classes a task; support and query images a class.
        count: Number of training tasks; None means every combination of classes once.
        heldout: Number of held-out tasks.
        split: ``images`` holds out images of every class, ``classes`` holds out whole classes.
        heldout_share: Share of the images or classes held out.
        noise: As :meth:`core.tasks.noise.Noise.parse` takes it; planted in the training tasks alone.
    """

    data: str = "mnist5k"
    ways: int = 5
    shots: int = 5
    queries: int = 10
    count: int | None = None
    heldout: int = 100
    split: str = "images"
    heldout_share: float = 0.3
    noise: str = "none"
    seed: int = 0


@dataclass(frozen=True)
class TaskFolder:
    """What lies in a folder of tasks; ``planted`` is None where no noise was planted or nobody recorded it."""

    data: str
    train: TaskList
    heldout: TaskList
    planted: pd.DataFrame | None
    description: dict


def generate(settings: TaskSettings) -> TaskFolder:
    """Draw the tasks of ``settings``.

    Raises:
        UserError: the settings ask for more than the images hold.
    """
    images = load_images(settings.data)
    noise = Noise.parse(settings.noise)
    if settings.split not in ("images", "classes"):
        raise UserError(f"There is no split {settings.split!r}.", "Use images or classes.")
    if not 0 < settings.heldout_share < 1:
        raise UserError(f"The held-out share is {settings.heldout_share}.", "It must lie between 0 and 1.")
    if settings.seed < 0:
        raise UserError(f"The seed is {settings.seed}.", "It must be 0 or more.")
    # One stream a purpose: more held-out tasks or other noise must not change which training tasks are drawn.
    split_rng, train_rng, heldout_rng, noise_rng = (
        np.random.default_rng(s) for s in np.random.SeedSequence(settings.seed).spawn(4)
    )
    split = split_images if settings.split == "images" else split_classes
    train_positions, heldout_positions = split(images, settings.heldout_share, split_rng)
    planted: pd.DataFrame | None = None
    given = images.labels
    if noise.kind in ("images", "lookalike"):
        given, planted = mislabel_images(images, train_positions, noise, noise_rng)
    shape = {"ways": settings.ways, "shots": settings.shots, "queries": settings.queries}
    train = sample_tasks(
        images, pool_of(given, train_positions), **shape, count=settings.count, prefix="t", rng=train_rng
    )
    if noise.kind == "tasks":
        train, planted = flip_labels(train, noise, noise_rng)
    heldout = sample_tasks(
        images,
        pool_of(images.labels, heldout_positions),
        **shape,
        count=settings.heldout,
        prefix="h",
        rng=heldout_rng,
    )
    description = {
        "settings": asdict(settings),
        "data_hash": images.hash,
        "train_hash": train.hash,
        "heldout_hash": heldout.hash,
    }
    return TaskFolder(settings.data, train, heldout, planted, description)


def write_folder(tasks: TaskFolder, folder: Path) -> None:
    """Write the folder; ``tasks.json`` comes last, so a folder that has one is whole."""
    write_tasks(tasks.train, folder / "train.parquet")
    write_tasks(tasks.heldout, folder / "heldout.parquet")
    if tasks.planted is not None:
        with replacing(folder / "planted.parquet") as temporary:
            tasks.planted.to_parquet(temporary, index=False)
    write_json(folder / "tasks.json", tasks.description)


def read_folder(folder: Path) -> TaskFolder:
    """Read a folder of tasks and check it against its images.

    Raises:
        UserError: a file is missing or invalid, or an image occurs in training and held-out tasks.
    """
    description = read_json(folder / "tasks.json")
    try:
        data = description["settings"]["data"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / 'tasks.json'} does not name the data.", "Make the tasks again.") from error
    images = load_images(data)
    train, heldout = (read_tasks(folder / f"{part}.parquet", images) for part in ("train", "heldout"))
    shared = set(train.rows["image_id"]) & set(heldout.rows["image_id"])
    if shared:
        raise UserError(
            f"{folder}: image {min(shared)!r} occurs in training and in held-out tasks.",
            "Held-out tasks must be made of images no training task uses.",
        )
    if train.ways != heldout.ways:
        raise UserError(f"{folder}: training tasks are {train.ways}-way, held-out tasks {heldout.ways}-way.")
    planted = folder / "planted.parquet"
    return TaskFolder(data, train, heldout, pd.read_parquet(planted) if planted.exists() else None, description)
