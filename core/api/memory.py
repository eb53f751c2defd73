"""The Python API on objects in memory: tasks, and the functions that take them."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cachetools import LRUCache

from core.actions import rank as ranking_action
from core.actions.compute import Compute, load
from core.actions.edit import method_settings, named_settings
from core.actions.image_settings import ImportOptions
from core.actions.images import add_images
from core.actions.queue import build_queue
from core.actions.train import fit_model
from core.api.display import EditedModel, Model, ProgressBars, Ranking, ReviewQueue, check_path, check_type
from core.checkpoints import model as models
from core.checkpoints.foreign import import_checkpoint
from core.checkpoints.matching import CheckpointHints
from core.data import SOURCES, ImageSet
from core.data import load_images as open_images
from core.data.store import open_stored
from core.editing.methods import applied_changes, edit_model
from core.editing.net_effect import EditMeasurement, net_effect
from core.editing.settings import CONTROL_OF
from core.influence.methods import estimator
from core.influence.targets import Target
from core.maml.evaluation import Evaluation
from core.maml.evaluation import evaluate as evaluate_model
from core.maml.recipes import recipe_for
from core.maml.settings import TrainSettings
from core.maml.storage import UnsavedSteps
from core.review.settings import QueueSettings
from core.runtime.errors import UserError
from core.runtime.progress import NamedProgress, Progress
from core.runtime.settings import check_names, settings_of
from core.tasks.changes import Changes
from core.tasks.generate import TaskFolder, generate, read_folder
from core.tasks.settings import TaskSettings
from core.workspace.runs import RunWriter
from core.workspace.workspace import Project, check_fit


@dataclass(frozen=True, eq=False)
class Tasks:
    """Training and held-out tasks over an image set.

    Attributes:
        folder: The tasks; ``folder.train.rows`` and ``folder.heldout.rows`` are frames (:mod:`core.tasks.tasklist`).
    """

    images: ImageSet
    folder: TaskFolder

    @property
    def train(self) -> pd.DataFrame:
        """Return the rows of the training tasks: task_id, role, image_id, label, class, weight."""
        return self.folder.train.rows

    @property
    def heldout(self) -> pd.DataFrame:
        """Return the rows of the held-out tasks."""
        return self.folder.heldout.rows

    @property
    def injected(self) -> pd.DataFrame | None:
        """Return the injected label errors, or None if there are none: image_id, given, true (and task_id, role)."""
        return self.folder.planted

    def __repr__(self) -> str:
        train, heldout = self.folder.train, self.folder.heldout
        return f"Tasks({len(train)} training and {len(heldout)} held-out tasks, {train.ways}-way, {self.images.name})"


def load_images(source: str | Path, *, name: str = "", progress: bool = False, **options: Any) -> ImageSet:
    """Open an image set by name, or import a folder, archive or table of images.

    Args:
        source: ``mnist5k`` or ``shapes``, the name of an imported set, or a path, which is imported once, then found.
        name: The name of a newly imported set.
        options: Fields of :class:`core.actions.image_settings.ImportOptions`, for example ``size="28"``.

    Raises:
        UserError: there are no such images, or they cannot be read.
    """
    path = check_path("source", source)
    if isinstance(source, str) and (source in SOURCES or not path.exists()):
        return open_images(source)
    chosen = settings_of(ImportOptions, options)
    with closing(ProgressBars(progress)) as bars:
        return open_stored(add_images(path, chosen, name=name, progress=bars))


def images_from_arrays(
    images: np.ndarray, labels: Sequence[Any], *, ids: Sequence[str] = (), name: str = "images"
) -> ImageSet:
    """Return an image set of arrays in memory.

    Args:
        images: ``(n, height, width)`` or ``(n, height, width, 1 or 3)`` uint8.
        labels: ``(n,)`` class names or numbers.
        ids: ``(n,)`` unique ids. Default: the positions.

    Raises:
        UserError: there are no images, shapes disagree, pixels are not uint8, or an id occurs twice.
    """
    try:
        pixels = np.asarray(images)
    except ValueError as error:
        raise UserError(f"{name}: the images differ in size.", "Resize them to one size first.") from error
    if not len(pixels):
        raise UserError(f"{name}: there are no images.")
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if np.ndim(labels) == 0:
        raise UserError(f"{name}: invalid labels: {labels!r}.", "Give one class name or number per image.")
    classes, numbers = np.unique([str(label) for label in labels], return_inverse=True)
    names = np.array([str(image_id) for image_id in (ids if len(ids) else range(len(pixels)))])
    return ImageSet(name, pixels, numbers.astype(np.int64), tuple(classes.tolist()), names)


def draw_tasks(images: ImageSet, **settings: Any) -> Tasks:
    """Draw training and held-out tasks, optionally with injected label noise.

    Args:
        settings: Fields of :class:`core.tasks.settings.TaskSettings`: ways, shots, queries, count, heldout, noise, ...

    Raises:
        UserError: the settings require more images or classes than there are.
    """
    check_type("images", images, ImageSet, "load_images or images_from_arrays")
    chosen = settings_of(TaskSettings, settings, without=("data",))
    return Tasks(images, generate(replace(chosen, data=images.name), images))


def load_tasks(folder: str | Path) -> Tasks:
    """Read a folder of ``tasklens tasks``; raise UserError if it is invalid or its images are not on this machine."""
    tasks = read_folder(check_path("folder", folder))
    return Tasks(tasks.images(), tasks)


def train(
    tasks: Tasks,
    *,
    network: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> Model:
    """Meta-train a model.

    Args:
        network: Fields of :class:`core.maml.settings.ModelFields`: algorithm, backbone, filters, steps, rate, ...;
            not ``ways`` and ``shape``, which are those of the tasks.
        settings: Fields of :class:`core.maml.settings.TrainSettings`: iterations, meta_batch, learning_rate, seed, ...
            Fields of both that are not given are those of the recipe for the images (:mod:`core.maml.recipes`).

    Raises:
        UserError: a field is unknown or invalid, or the training diverged.
    """
    check_type("tasks", tasks, Tasks, _TASKS)
    fields = {} if network is None else network
    check_type("network", fields, Mapping, "field names and values, such as {'filters': 8}")
    check_names(fields, [name for name in models.ModelSpec.model_fields if name not in ("ways", "shape")])
    recipe = recipe_for(tasks.images.shape)
    spec = models.spec_of({**recipe.model_fields(fields), "ways": tasks.folder.train.ways})
    training = settings_of(TrainSettings, {**asdict(recipe.training), **settings})
    with closing(ProgressBars(progress)) as bars:
        return Model(fit_model(tasks.images, tasks.folder, spec, training, Compute(device=device), bars)[0])


def load_model(checkpoint: str | Path, tasks: Tasks | None = None, **hints: Any) -> Model:
    """Read a model folder or an external checkpoint: a state dict, safetensors, learn2learn.

    Args:
        checkpoint: A folder or file; no pickled code in it is executed.
        tasks: The tasks that an external checkpoint has to fit.
        hints: Fields of :class:`core.checkpoints.matching.CheckpointHints` that the checkpoint does not determine.

    Raises:
        UserError: the checkpoint cannot be read, or does not fit the tasks.
    """
    path = check_path("checkpoint", checkpoint)
    if (path / "model.json").is_file():
        return Model(models.load_model(path))
    if tasks is None:
        raise UserError(f"{path} is not a model folder of TaskLens.", "Pass the tasks it was trained on: tasks=...")
    check_type("tasks", tasks, Tasks, _TASKS)
    fields = settings_of(CheckpointHints, hints, without=("ways", "shape"))
    model = import_checkpoint(path, replace(fields, ways=tasks.folder.train.ways, shape=tasks.images.shape))
    check_fit(tasks.images, tasks.folder, model)
    return Model(model)


def evaluate(tasks: Tasks, model: Model, *, device: str = "auto", progress: bool = False) -> Evaluation:
    """Adapt the model to every held-out task and measure it on the query images; raise UserError if it does not fit."""
    loaded = load(_project(tasks, model), Compute(device=device))
    with closing(ProgressBars(progress)) as bars:
        bars.stage("held-out tasks", len(loaded.heldout))
        return evaluate_model(loaded.model, loaded.params, loaded.heldout, bars.advance)


def rank(
    tasks: Tasks,
    model: Model,
    *,
    method: str = "task-if",
    target: str = "all",
    device: str = "auto",
    progress: bool = False,
    **options: Any,
) -> Ranking:
    """Rank training tasks, rows and images by their influence on held-out tasks.

    Args:
        method: One of :data:`core.influence.methods.METHODS`, except ``tracin``, which needs a workspace.
        target: ``all``, ``TASK,TASK,...`` or ``TASK/IMAGE`` among the held-out tasks.
        options: Options of the method (:func:`core.influence.methods.estimator`): damping, curvature_tasks, solver, ...

    Raises:
        UserError: the method or target is unknown, or the solve did not converge.
    """
    chosen = estimator(method, **options)
    if chosen.name == "tracin":
        advice = "Rank in a workspace: open_workspace(...).rank(...)."
        raise UserError("tracin needs the snapshots of a training.", advice)
    loaded = load(_project(tasks, model), Compute(device=device))
    with closing(ProgressBars(progress)) as bars:
        scores = ranking_action.scores(loaded, Target.parse(target), chosen, UnsavedSteps(), bars)
    return Ranking(**vars(scores), pixels=tasks.images)


def edit(
    tasks: Tasks,
    model: Model,
    changes: Changes,
    *,
    method: str = "finetune",
    device: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> EditedModel:
    """Edit a model for changed tasks, and measure it and its control on the held-out tasks.

    The control is the same procedure without the changes, so this takes twice as long as the edit itself; further edits
    of the same model by the same method and settings in this process reuse it.

    Args:
        changes: What is removed and relabelled, for example ``Changes.named(tasks=[...], images=[...])``.
        method: linear, newton, steps, finetune or retrain; or the name of a measured method with ``-all``: its control.
        settings: Of the method, as for :func:`core.actions.edit.named_settings`.

    Raises:
        UserError: the method is unknown or has no such setting, there are no changes, or no task would remain.
    """
    check_type("changes", changes, Changes, "Changes.named(tasks=[...], images=[...])")
    changes, project = applied_changes(method, changes), _project(tasks, model)
    chosen = method_settings(project, method, **named_settings(method, settings))
    loaded = load(project, Compute(device=device))
    task_ids = loaded.heldout_tasks.task_ids
    before = evaluate_model(loaded.model, loaded.params, loaded.heldout).heldout_table(task_ids)

    def edited(name: str, applied: Changes, reporter: Progress) -> tuple[models.Model, EditMeasurement, float]:
        with tempfile.TemporaryDirectory() as folder:
            writer = RunWriter(Path(folder))
            made, result, figures = edit_model(name, chosen, loaded, model.stored, applied, before, writer, reporter)
        return made, EditMeasurement(figures, result.heldout_table(task_ids)), sum(writer.seconds.values())

    with closing(ProgressBars(progress)) as bars:
        made, measured, seconds = edited(method, changes, bars)
        control = None
        if method in CONTROL_OF:
            key = (*project.hashes.values(), method, chosen, str(loaded.device))
            if (control := _controls.get(key)) is None:
                _, control, _ = edited(CONTROL_OF[method], Changes(), NamedProgress(bars, "control"))
                _controls[key] = control
    effect = net_effect(method, measured, control)
    return EditedModel(Model(made), method, dict(measured.figures), seconds, effect)


_controls: LRUCache[tuple[Hashable, ...], EditMeasurement] = LRUCache(32)
"""Measurements of controls by problem, method, settings and device."""


def review_queue(
    tasks: Tasks, model: Model, *, device: str = "auto", progress: bool = False, **settings: Any
) -> ReviewQueue:
    """List suspected label errors of the training tasks, most suspicious first.

    Args:
        settings: Fields of :class:`core.review.settings.QueueSettings`: rounds, calibrate, slow, seed.

    Raises:
        UserError: the tasks have a single class.
    """
    chosen = settings_of(QueueSettings, settings)
    with closing(ProgressBars(progress)) as bars:
        built = build_queue(_project(tasks, model), chosen, Compute(device=device), bars)
    return ReviewQueue(built.items, built.summary, tasks.images)


_TASKS = "draw_tasks or load_tasks"


def _project(tasks: Tasks, model: Model) -> Project:
    check_type("tasks", tasks, Tasks, _TASKS)
    check_type("model", model, Model, "train or load_model")
    check_fit(tasks.images, tasks.folder, model.stored)
    return Project(tasks.images, tasks.folder, model.stored)
