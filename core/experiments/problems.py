"""The problems that experiments work on: tasks with injected label noise and a trained model, saved for reuse.

Three parts of the images are disjoint: those of the training tasks, those of the held-out tasks that rankings are for
(the *targets*), and those of the tasks that measure accuracy (the *tests*), so that no accuracy is measured on images
that a ranking has seen. Where the images have splits train, val and test, these are the parts.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from core.actions.compute import Compute, load
from core.actions.train import train_model
from core.checkpoints.model import ModelSpec, spec_of
from core.data import ImageSet, load_images
from core.experiments.profiles import OMNIGLOT, WAYS, Profile
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.evaluation import Evaluation, evaluate
from core.maml.loaded import Loaded
from core.maml.recipes import recipe_for
from core.maml.training import TrainSettings
from core.runtime.disk_errors import disk_errors
from core.runtime.files import library
from core.runtime.hashing import content_hash
from core.runtime.progress import Progress
from core.tasks.generate import TaskFolder, TaskSettings, write_folder
from core.tasks.generate import draw_tasks as draw_task_folder
from core.tasks.sampling import pool_of, sample_tasks, split_classes, split_images, split_official
from core.tasks.tasklist import TaskList, read_tasks, write_tasks
from core.workspace.workspace import Project, Workspace, create

_HELDOUT_SHARE = 0.3
_TESTS = "tests.parquet"
Split = tuple[np.ndarray, np.ndarray, np.ndarray]


def experiments_home() -> Path:
    """Return the folder of the models and results of experiments."""
    return library() / "experiments"


@dataclass(frozen=True, eq=False)
class Problem:
    """A workspace with a trained model and its tasks that also has tests."""

    workspace: Workspace
    tests: TaskList
    compute: Compute

    @cached_property
    def project(self) -> Project:
        """Return the model, tasks and images."""
        return self.workspace.project()

    @cached_property
    def loaded(self) -> Loaded:
        """Return the model and its tasks on the device."""
        return load(self.project, self.compute)

    @cached_property
    def _episodes(self) -> Episodes:
        return self.loaded.episodes(self.tests)

    def evaluate_tests(self, params: Params) -> Evaluation:
        """Return accuracy and loss of meta-parameters on every test."""
        return evaluate(self.loaded.model, self.loaded.place(params), self._episodes)

    @property
    def noisy_tasks(self) -> np.ndarray:
        """``(N,)`` of bool: the training tasks with an injected label error."""
        planted, train = self.project.tasks.planted, self.project.tasks.train
        if planted is None:
            return np.zeros(len(train.task_ids), dtype=bool)
        key = "task_id" if "task_id" in planted else "image_id"
        return np.isin(train.task_ids, train.rows.loc[train.rows[key].isin(planted[key]), "task_id"].unique())


@dataclass(frozen=True)
class Repetition:
    """A seed of an experiment on a data set; ``images`` is the image set used for the paper's ``data``."""

    profile: Profile
    data: str
    images: str
    seed: int

    @property
    def spec(self) -> ModelSpec:
        """Return the model that the training recipe for the images has, with the filters of the profile.

        Raises:
            UserError: the images are not on this machine.
        """
        shape = load_images(self.images).shape
        fields = {"ways": WAYS, "filters": self.profile.filters, "shape": shape}
        return spec_of(recipe_for(shape).model_fields(fields))


@dataclass(frozen=True)
class ProblemSettings:
    """A description that determines a problem; its saved copy is found again by these fields.

    Attributes:
        seed: Of split, tasks and noise; ``model_seed`` is that of the initial parameters and the order of the tasks.
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


def problem_settings(unit: Repetition, noise: str, *, seed: int | None = None) -> ProblemSettings:
    """Return the settings of a problem; ``seed`` replaces the repetition's, except the model's seed."""
    profile, seed = unit.profile, unit.seed if seed is None else seed
    tasks = TaskSettings(
        data=unit.images,
        ways=WAYS,
        shots=profile.shots,
        queries=profile.queries,
        count=profile.counts[unit.data],
        heldout=profile.targets,
        noise=noise,
        seed=seed,
        skip_small=True,
        validation=0,  # every comparison is between the last steps of trainings of equal length
    )
    training = replace(profile.training[unit.data], seed=unit.seed)
    return ProblemSettings(unit.data, unit.images, noise, seed, unit.seed, tasks, profile.tests, training, unit.spec)


def build_problem(settings: ProblemSettings, compute: Compute, progress: Progress, command: str = "") -> Problem:
    """Return the problem with these settings, read from disk or built now; an interrupted training resumes.

    Raises:
        UserError: the images are not on this machine, or too few.
    """
    images = load_images(settings.images)
    named = {**asdict(settings), "spec": settings.spec.model_dump(mode="json"), "dtype": compute.dtype}
    folder = experiments_home() / "problems" / content_hash({**named, "data_hash": images.hash})[:16]

    if not (folder / "workspace" / "workspace.json").exists():
        with _locked(folder):
            if not (folder / "tasks" / "tasks.json").exists():
                tasks, tests = draw_tasks(images, settings)
                tasks.description["command"] = command
                write_tasks(tests, folder / _TESTS)
                write_folder(tasks, folder / "tasks")
            train_model(
                folder / "tasks", folder / "model", settings.spec, settings.training, compute, progress, command
            )
            create(folder / "workspace", folder / "tasks", folder / "model")
    return Problem(Workspace(folder / "workspace", waits=True), read_tasks(folder / _TESTS, images), compute)


def draw_tasks(images: ImageSet, settings: ProblemSettings) -> tuple[TaskFolder, TaskList]:
    """Draw the tasks and the tests of a problem."""
    rng = np.random.default_rng([settings.seed, 1])
    train, targets, tests = split_three_ways(images, settings.data, rng)
    folder = draw_task_folder(images, settings.tasks, train, targets)
    shape = {"ways": WAYS, "shots": settings.tasks.shots, "queries": settings.tasks.queries}
    pool = pool_of(images.labels, tests, settings.tasks.shots + settings.tasks.queries)
    return folder, sample_tasks(images, pool, **shape, count=settings.tests, prefix="e", rng=rng)


def split_three_ways(images: ImageSet, data: str, rng: np.random.Generator) -> Split:
    """Return the positions of the images for training, targets and tests, three disjoint arrays.

    The images' own splits where they have train, val and test. Otherwise classes are divided for Omniglot and where
    train and test share none, and the images of every class for everything else.
    """
    splits = set() if images.splits is None else {str(split) for split in images.splits}
    if {"train", "val", "test"} <= splits:
        train, targets = split_official(images, "val")
        return train, targets, split_official(images, "test")[1]
    by_classes = data == OMNIGLOT or ({"train", "test"} <= splits and _are_classes_disjoint(images))
    split = split_classes if by_classes else split_images
    train, heldout = split(images, _HELDOUT_SHARE, rng)
    labels = images.labels[heldout]
    if by_classes:
        classes = rng.permutation(np.unique(labels))
        is_target = np.isin(labels, classes[: len(classes) // 2])
    else:
        is_target = np.zeros(len(heldout), dtype=bool)
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            is_target[members[: len(members) // 2]] = True
    return train, heldout[is_target], heldout[~is_target]


def _are_classes_disjoint(images: ImageSet) -> bool:
    return not np.intersect1d(images.labels[images.splits == "train"], images.labels[images.splits == "test"]).size


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make other processes that need the same problem wait."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
