"""The models that experiments work on: tasks drawn, noise planted, a model trained, kept for every later experiment.

Three parts of the images never meet: those of the training tasks, those of the held-out tasks that rankings are for
(the *targets*), and those of the tasks that measure accuracy (the *tests*), so that no accuracy is measured on what a
ranking has seen. Where images come with parts train, val and test, these are the parts.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from core.actions.compute import Compute, Loaded
from core.actions.train import train_model
from core.checkpoints.model import ModelSpec
from core.data import ImageSet, load_images
from core.experiments.profiles import OMNIGLOT, WAYS, Profile
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.evaluation import Evaluation, evaluate
from core.maml.training import TrainSettings
from core.runtime.files import content_hash, disk_errors, library
from core.runtime.progress import Progress
from core.tasks.generate import TaskFolder, TaskSettings, draw_tasks, write_folder
from core.tasks.sampling import pool_of, sample_tasks, split_classes, split_images, split_official
from core.tasks.tasklist import TaskList, read_tasks, write_tasks
from core.workspace.workspace import Workspace, create

_HELD = 0.3
_TESTS = "tests.parquet"
Split = tuple[np.ndarray, np.ndarray, np.ndarray]


def experiments_home() -> Path:
    """Where models and results of experiments lie."""
    return library() / "experiments"


@dataclass(frozen=True, eq=False)
class Problem:
    """A trained model with its tasks, and the tests."""

    workspace: Workspace
    tests: TaskList
    compute: Compute

    @cached_property
    def loaded(self) -> Loaded:
        return Loaded(self.workspace.project(), self.compute)

    @cached_property
    def _episodes(self) -> Episodes:
        return self.loaded.episodes(self.tests)

    def tested(self, params: Params) -> Evaluation:
        """How good meta-parameters are on the tests."""
        return evaluate(self.loaded.model, self.loaded.place(params), self._episodes)

    @property
    def spoilt_tasks(self) -> np.ndarray:
        """``(N,)`` of bool: the training tasks with a planted wrong label."""
        planted, train = self.loaded.project.tasks.planted, self.loaded.project.tasks.train
        if planted is None:
            return np.zeros(len(train.task_ids), dtype=bool)
        if "task_id" in planted:
            return np.isin(train.task_ids, planted["task_id"].unique())
        rows = train.rows.loc[train.rows["image_id"].isin(planted["image_id"]), "task_id"]
        return np.isin(train.task_ids, rows.unique())


@dataclass(frozen=True)
class Recipe:
    """All that a problem depends on.

    Attributes:
        data: The paper's name of the data set; ``images`` is the image set that stands for it.
        seed: Of split, tasks and noise.
        model_seed: Of the initial parameters and of the order of the tasks.
    """

    data: str
    images: str
    noise: str
    seed: int
    model_seed: int
    tasks: TaskSettings
    tests: int
    training: TrainSettings
    spec: ModelSpec


def recipe(
    profile: Profile,
    data: str,
    images: str,
    noise: str,
    seed: int,
    *,
    training: TrainSettings | None = None,
    model_seed: int | None = None,
) -> Recipe:
    """What ``profile`` makes of a data set; the models are trained as ``training`` says, by default as the profile."""
    model_seed = seed if model_seed is None else model_seed
    return Recipe(
        data,
        images,
        noise,
        seed,
        model_seed,
        TaskSettings(
            data=images,
            ways=WAYS,
            shots=profile.shots,
            queries=profile.queries,
            count=profile.counts[data],
            heldout=profile.targets,
            noise=noise,
            seed=seed,
            skip_small=True,
        ),
        profile.tests,
        replace(training or profile.training, seed=model_seed),
        profile.spec(data),
    )


def problem(made_by: Recipe, compute: Compute, progress: Progress, command: str = "") -> Problem:
    """The problem of a recipe, from the disk or made now; an interrupted training goes on.

    Raises:
        UserError: the images are not here, or too few.
    """
    images = load_images(made_by.images)
    named = {**asdict(made_by), "spec": made_by.spec.model_dump(mode="json"), "dtype": compute.dtype}
    folder = experiments_home() / "problems" / content_hash({**named, "data_hash": images.hash})[:16]

    def make() -> None:
        if not (folder / "tasks" / "tasks.json").exists():
            tasks, tests = draw(images, made_by)
            tasks.description["command"] = command
            write_tasks(tests, folder / _TESTS)
            write_folder(tasks, folder / "tasks")
        train_model(folder / "tasks", folder / "model", made_by.spec, made_by.training, compute, progress, command)
        create(folder / "workspace", folder / "tasks", folder / "model")

    if not (folder / "workspace" / "workspace.json").exists():
        _alone(folder, make)
    return Problem(Workspace(folder / "workspace", waits=True), read_tasks(folder / _TESTS, images), compute)


def draw(images: ImageSet, made_by: Recipe) -> tuple[TaskFolder, TaskList]:
    """Tasks and tests of a recipe."""
    rng = np.random.default_rng([made_by.seed, 1])
    train, targets, tests = three_parts(images, made_by.data, rng)
    folder = draw_tasks(images, made_by.tasks, train, targets)
    shape = {"ways": WAYS, "shots": made_by.tasks.shots, "queries": made_by.tasks.queries}
    pool = pool_of(images.labels, tests).without_small(made_by.tasks.shots + made_by.tasks.queries)
    return folder, sample_tasks(images, pool, **shape, count=made_by.tests, prefix="e", rng=rng)


def three_parts(images: ImageSet, data: str, rng: np.random.Generator) -> Split:
    """Positions of the images for training, targets and tests, no image in two of them.

    The parts that the images come with, if they have train, val and test and these are parts of the classes; of
    Omniglot otherwise classes are divided, of everything else the images of every class.
    """
    parts = set() if images.splits is None else {str(part) for part in images.splits}
    if {"train", "val", "test"} <= parts:
        train, targets = split_official(images, "val")
        return train, targets, split_official(images, "test")[1]
    by_classes = data == OMNIGLOT or ({"train", "test"} <= parts and _no_class_in_both(images))
    split = split_classes if by_classes else split_images
    train, held = split(images, _HELD, rng)
    of_class = images.labels[held]
    if by_classes:
        classes = rng.permutation(np.unique(of_class))
        first = np.isin(of_class, classes[: len(classes) // 2])
    else:
        first = np.zeros(len(held), dtype=bool)
        for one in np.unique(of_class):
            members = rng.permutation(np.flatnonzero(of_class == one))
            first[members[: len(members) // 2]] = True
    return train, held[first], held[~first]


def _no_class_in_both(images: ImageSet) -> bool:
    return not np.intersect1d(images.labels[images.splits == "train"], images.labels[images.splits == "test"]).size


def _alone(folder: Path, make: Callable[[], None]) -> None:
    """Keep another process, that may want the same problem, waiting until it is there."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            make()
