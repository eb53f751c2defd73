"""The Python API: from images to a ranking in ten lines, on objects in memory or on a workspace.

::

    from core import api

    images = api.load_images("mnist5k")
    tasks = api.draw_tasks(images, count=60, noise="easy")
    model = api.train(tasks, iterations=300)
    ranking = api.rank(tasks, model)
    harmful = ranking.tasks.nsmallest(20, "score")["task_id"]
    edited = api.edit(tasks, model, api.Changes.named(tasks=harmful), method="finetune")
    print(edited)

Results are pandas frames and small typed objects. Every function that computes takes ``progress=True`` for progress
bars and ``device`` (``auto``, ``cpu``, ``cuda[:N]``). Errors are :class:`UserError`. docs/python.md explains it all.
"""

from __future__ import annotations

import base64
import html
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm.auto import tqdm

from core.actions import compute as computing
from core.actions.decide import mark
from core.actions.edit import edit as edit_workspace
from core.actions.edit import step_settings
from core.actions.evaluate import evaluation
from core.actions.export import export as export_workspace
from core.actions.export_decisions import decision_table
from core.actions.image_settings import ImportOptions
from core.actions.images import add_images
from core.actions.import_decisions import import_decisions
from core.actions.queue import newest_queue, queue
from core.actions.rank import KIND as RANK
from core.actions.rank import ranking as rank_workspace
from core.actions.train import fit_model
from core.checkpoints.foreign import import_checkpoint
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import Model as StoredModel
from core.checkpoints.model import load_model as read_model
from core.checkpoints.model import save_model, spec_of
from core.data import SOURCES, ImageSet
from core.data import load_images as open_images
from core.data.store import open_stored
from core.editing import methods as edit_methods
from core.editing.retraining import require_training_settings
from core.editing.settings import CONTROLS, EDIT_METHODS, FINETUNE, NewtonSettings
from core.influence.methods import estimator
from core.influence.ranking import Ranking as Scores
from core.influence.ranking import influence_ranking
from core.influence.self_influence import self_influence_ranking
from core.influence.targets import Target
from core.maml.evaluation import Evaluation, Interval
from core.maml.evaluation import evaluate as evaluate_model
from core.maml.loaded import Loaded
from core.maml.settings import Compute, TrainSettings
from core.maml.storage import UnsavedSteps
from core.review.build_queue import QueueBuilder
from core.review.member_scores import ScoreInputs, ScoreSettings
from core.review.settings import QueueSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.tasks.generate import TaskFolder, generate, read_folder, write_folder
from core.tasks.settings import TaskSettings
from core.tasks.tasklist import FORMATS
from core.workspace.runs import Run
from core.workspace.workspace import Project, check_fit, create, locate
from core.workspace.workspace import Workspace as StoredWorkspace

__all__ = [
    "Changes",
    "EditedModel",
    "ImageGrid",
    "Model",
    "Ranking",
    "ReviewQueue",
    "Tasks",
    "UserError",
    "Workspace",
    "create_workspace",
    "draw_tasks",
    "edit",
    "evaluate",
    "images_from_arrays",
    "load_images",
    "load_model",
    "load_tasks",
    "open_workspace",
    "rank",
    "review_queue",
    "train",
]

_THUMBNAIL = 56  # pixels


class ProgressBars(Progress):
    """A reporter that draws one tqdm bar per stage."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None

    def stage(self, name: str, total: int, *, done: int = 0) -> None:
        """Begin a stage, with a bar of its own."""
        self.close()
        self._bar = tqdm(desc=name, total=total, initial=done)
        super().stage(name, total, done=done)

    def close(self) -> None:
        """Finish the bar of the stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _report(self, force: bool) -> None:
        if self._bar is not None:
            if self._note:
                self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(self._done - self._bar.n)


@contextmanager
def _reporter(is_shown: bool) -> Iterator[Progress]:
    if not is_shown:
        yield Progress()
        return
    bars = ProgressBars()
    try:
        yield bars
    finally:
        bars.close()


@dataclass(frozen=True, eq=False)
class Tasks:
    """Training and held-out tasks over an image set.

    Attributes:
        images: The images.
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
        """Return the injected label errors, or None where there are none: image_id, given, true (and task_id, role)."""
        return self.folder.planted

    def __repr__(self) -> str:
        train, heldout = self.folder.train, self.folder.heldout
        return f"Tasks({len(train)} training and {len(heldout)} held-out tasks, {train.ways}-way, {self.images.name})"


@dataclass(frozen=True, eq=False)
class Model:
    """A meta-trained model.

    Attributes:
        stored: Its specification, meta-parameters and metadata.
    """

    stored: StoredModel

    @property
    def params(self) -> dict[str, torch.Tensor]:
        """Return the meta-parameters by name, on the CPU."""
        return self.stored.params

    @property
    def report(self) -> dict[str, Any]:
        """Return how training ended: stationarity, held-out accuracy and loss; empty for imported models."""
        return self.stored.metadata.get("report", {})

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder that :func:`load_model` and every command read."""
        save_model(self.stored, Path(folder))
        return Path(folder)

    def __repr__(self) -> str:
        accuracy = self.report.get("heldout_accuracy")
        text = f", held-out accuracy {_interval(Interval(**accuracy))}" if accuracy else ""
        return f"Model({self.stored.spec.description}, {self.stored.size:,} parameters{text})"


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """A grid of captioned images, drawn by notebooks.

    Attributes:
        images: ``(n, height, width, channels)`` uint8.
        captions: One per image.
    """

    images: np.ndarray
    captions: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(self.captions)

    def _repr_html_(self) -> str:
        tiles = "".join(
            f'<figure style="margin:0;width:120px"><img src="{_png(pixels)}" width="{_THUMBNAIL}" '
            f'height="{_THUMBNAIL}" style="image-rendering:pixelated">'
            f'<figcaption style="font-size:11px;overflow-wrap:anywhere">{html.escape(caption)}</figcaption></figure>'
            for pixels, caption in zip(self.images, self.captions, strict=True)
        )
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{tiles}</div>'


@dataclass(frozen=True, eq=False)
class Ranking:
    """Influence scores of training data on a target: positive = helpful, negative = harmful, in nats.

    Attributes:
        scores: The tables by level and the report of the solve.
        pixels: The images that the tables name.
    """

    scores: Scores
    pixels: ImageSet

    @property
    def tasks(self) -> pd.DataFrame:
        """Return one row per training task (:func:`core.influence.scores.task_table`)."""
        return self.scores.tasks

    @property
    def instances(self) -> pd.DataFrame:
        """Return one row per support or query row of a training task."""
        return self.scores.instances

    @property
    def images(self) -> pd.DataFrame:
        """Return one row per training image, its score the sum over its rows."""
        return self.scores.images

    @property
    def report(self) -> dict[str, Any]:
        """Return solver, damping, residual and the loss of the target."""
        return self.scores.report

    def show(self, count: int = 12, *, most: str = "harmful") -> ImageGrid:
        """Return a grid of the most harmful or most helpful images.

        Raises:
            UserError: ``most`` is neither ``harmful`` nor ``helpful``.
        """
        if most not in ("harmful", "helpful"):
            raise UserError(f"A ranking has no most {most!r} images.", "Use harmful or helpful.")
        chosen = self.images.sort_values("score", ascending=most == "harmful").head(count)
        captions = [f"{image_id}: {1000 * score:+.3g} mnat" for image_id, score in _pairs(chosen, "score")]
        return _grid(self.pixels, chosen, captions)

    def __repr__(self) -> str:
        solver, residual = self.report.get("solver"), self.report.get("residual")
        accuracy = f", residual {residual:.1e}" if isinstance(residual, float) else ""
        return f"Ranking({len(self.tasks)} tasks, {len(self.images):,} images, solver {solver}{accuracy})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}, most harmful images:</p>{self.show()._repr_html_()}"


@dataclass(frozen=True, eq=False)
class ReviewQueue:
    """Suspected label errors, most suspicious first.

    Attributes:
        items: The table of :class:`core.review.build_queue.BuiltQueue`.
        summary: How the queue was made.
        pixels: The images that the table names.
    """

    items: pd.DataFrame
    summary: dict[str, Any]
    pixels: ImageSet

    def show(self, count: int = 12) -> ImageGrid:
        """Return a grid of the most suspicious items with their given and suggested classes."""
        chosen = self.items.head(count)
        texts = zip(chosen["image_id"], chosen["class"], chosen["suggested"], strict=True)
        return _grid(
            self.pixels, chosen, [f"{image_id}: {given} → {suggested}?" for image_id, given, suggested in texts]
        )

    def __repr__(self) -> str:
        return f"ReviewQueue({len(self.items):,} items, ranked by {self.summary.get('ranking')})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.show()._repr_html_()}"


@dataclass(frozen=True, eq=False)
class EditedModel:
    """A model after an edit, measured on the held-out tasks.

    Attributes:
        model: The edited model.
        method: One of :data:`core.editing.settings.EDIT_METHODS`.
        accuracy_change: Mean change of the held-out accuracy with its 95 % confidence interval, paired by task.
        figures: All figures about the edit (cost, accuracy, loss, changes).
    """

    model: Model
    method: str
    accuracy_change: Interval
    figures: dict[str, Any]

    def __repr__(self) -> str:
        return f"EditedModel({self.method}: held-out accuracy {_interval(self.accuracy_change, '+.1%')})"


def load_images(source: str | Path, *, name: str = "", progress: bool = False, **options: Any) -> ImageSet:
    """Open an image set by name, or import a folder, archive or table of images.

    Args:
        source: ``mnist5k``, the name of an imported set, or a path; a path is imported once, then found again.
        name: The name of a newly imported set.
        options: Fields of :class:`core.actions.image_settings.ImportOptions`, for example ``size="28"``.

    Raises:
        UserError: there are no such images, or they cannot be read.
    """
    is_path = isinstance(source, Path) or (source not in SOURCES and Path(source).exists())
    if not is_path:
        return open_images(str(source))
    with _reporter(progress) as reporter:
        return open_stored(add_images(Path(source), ImportOptions(**options), name=name, progress=reporter))


def images_from_arrays(
    images: np.ndarray, labels: Sequence[Any], *, ids: Sequence[str] = (), name: str = "images"
) -> ImageSet:
    """Return an image set of arrays in memory.

    Args:
        images: ``(n, height, width)`` or ``(n, height, width, 1 or 3)`` uint8.
        labels: ``(n,)`` class names or numbers.
        ids: ``(n,)`` unique ids; left out: the positions.
        name: What errors and reprs call the set.

    Raises:
        UserError: shapes disagree, pixels are not uint8, or an id occurs twice.
    """
    pixels = np.asarray(images)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    classes, numbers = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    names = np.array([str(image_id) for image_id in ids] if len(ids) else [str(at) for at in range(len(pixels))])
    return ImageSet(name, pixels, numbers.astype(np.int64), tuple(classes.tolist()), names)


def draw_tasks(images: ImageSet, **settings: Any) -> Tasks:
    """Draw training and held-out tasks, with injected label noise if wanted.

    Args:
        settings: Fields of :class:`core.tasks.settings.TaskSettings`: ways, shots, queries, count, heldout, noise, ...

    Raises:
        UserError: the settings ask for more than the images hold.
    """
    return Tasks(images, generate(TaskSettings(data=images.name, **settings), images))


def load_tasks(folder: str | Path) -> Tasks:
    """Read a folder of tasks that the command ``tasklens tasks`` wrote, with its images.

    Raises:
        UserError: a file is missing or invalid, or the images are not on this machine.
    """
    tasks = read_folder(Path(folder))
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
        network: Fields of :class:`core.maml.settings.ModelFields`: algorithm, backbone, filters, steps, rate, ...
        settings: Fields of :class:`core.maml.settings.TrainSettings`: iterations, meta_batch, learning_rate, seed, ...

    Raises:
        UserError: a field is unknown or wrong, or the training diverged.
    """
    spec = spec_of({"ways": tasks.folder.train.ways, **(network or {})})
    with _reporter(progress) as reporter:
        model, _ = fit_model(
            tasks.images, tasks.folder, spec, TrainSettings(**settings), Compute(device=device), reporter
        )
    return Model(model)


def load_model(checkpoint: str | Path, tasks: Tasks | None = None, **hints: Any) -> Model:
    """Read a model folder, or a checkpoint made elsewhere: a state dict, safetensors, learn2learn.

    Args:
        checkpoint: A folder or file; no pickle code in it is ever run.
        tasks: The tasks that a checkpoint from elsewhere has to fit.
        hints: Fields of :class:`core.checkpoints.matching.CheckpointHints`, where the checkpoint leaves them open.

    Raises:
        UserError: the checkpoint cannot be read, or does not fit the tasks.
    """
    path = Path(checkpoint)
    if (path / "model.json").is_file():
        return Model(read_model(path))
    if tasks is None:
        raise UserError(f"{path} is a checkpoint from elsewhere.", "Pass the tasks it was trained for: tasks=...")
    ask = CheckpointHints(ways=tasks.folder.train.ways, shape=tasks.images.shape, **hints)
    model = import_checkpoint(path, ask)
    check_fit(tasks.images, tasks.folder, model)
    return Model(model)


def evaluate(tasks: Tasks, model: Model, *, device: str = "auto", progress: bool = False) -> Evaluation:
    """Adapt the model to every held-out task and measure it on the query images.

    Raises:
        UserError: the model does not fit the tasks.
    """
    loaded = _load(tasks, model, device)
    with _reporter(progress) as reporter:
        reporter.stage("held-out tasks", len(loaded.heldout))
        return evaluate_model(loaded.model, loaded.params, loaded.heldout, reporter.advance)


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
        options: Parts of the method (:func:`core.influence.methods.estimator`): damping, curvature_tasks, solver, ...

    Raises:
        UserError: the method or target is unknown, or the solve did not converge.
    """
    chosen = estimator(method, **options)
    if chosen.name == "tracin":
        raise UserError(
            "tracin needs the snapshots of a training.", "Rank in a workspace: open_workspace(...).rank(...)."
        )
    loaded = _load(tasks, model, device)
    with _reporter(progress) as reporter:
        if chosen.name == "self-influence":
            scores = self_influence_ranking(loaded, chosen, UnsavedSteps(), reporter)
        else:
            scores = influence_ranking(loaded, Target.parse(target), chosen, UnsavedSteps(), reporter)
    return Ranking(scores, tasks.images)


def edit(
    tasks: Tasks,
    model: Model,
    changes: Changes,
    *,
    method: str = "finetune",
    device: str = "auto",
    progress: bool = False,
) -> EditedModel:
    """Edit a model for changed tasks and measure it on the held-out tasks.

    Args:
        changes: What is removed and relabelled, for example ``Changes.named(tasks=[...], images=[...])``.
        method: linear, newton, steps, finetune or retrain, or a control (finetune-all, steps-all).

    Raises:
        UserError: the method is unknown, there are no changes, or no task would remain.
    """
    if method not in EDIT_METHODS:
        raise UserError(f"Unknown edit method {method!r}.", f"Use one of {', '.join(EDIT_METHODS)}.")
    if not len(changes) and method not in CONTROLS:
        raise UserError("There are no changes.", "Remove or relabel tasks or images first.")
    changes = Changes() if method in CONTROLS else changes
    loaded, before = _load(tasks, model, device), evaluate(tasks, model, device=device)
    with _reporter(progress) as reporter, tempfile.TemporaryDirectory() as folder:
        writer = _TemporaryWriter(Path(folder))
        match method.removesuffix("-all"):
            case "linear":
                edited = edit_methods.linear(loaded, changes, edit_methods.SOLVE, writer, reporter)
            case "newton":
                edited = edit_methods.newton(loaded, changes, NewtonSettings(), writer, reporter)
            case "steps":
                project = Project(tasks.images, tasks.folder, model.stored)
                edited = edit_methods.steps(loaded, changes, step_settings(project), [], writer, reporter)
            case "finetune":
                edited = edit_methods.finetune(loaded, changes, FINETUNE, writer, reporter)
            case _:
                settings = require_training_settings(model.stored)
                initial = model.stored.spec.init(settings.seed, torch.float64)
                edited = edit_methods.retrain(loaded, changes, settings, initial, writer, reporter)
        result = evaluate_model(loaded.model, edited.params, loaded.heldout)
    heldout = before.heldout_table(tasks.folder.heldout.task_ids)
    figures = edited.figures | edit_methods.measured_figures(edited, result, heldout, None)
    params = {name: value.cpu().float() for name, value in edited.params.items()}
    stored = StoredModel(model.stored.spec, params, {"edited_from": model.stored.hash, "removal": changes.hash})
    return EditedModel(Model(stored), method, Interval(**figures["accuracy_change"]), figures)


def review_queue(
    tasks: Tasks, model: Model, *, device: str = "auto", progress: bool = False, **settings: Any
) -> ReviewQueue:
    """List suspected label errors of the training tasks, most suspicious first.

    Args:
        settings: Fields of :class:`core.review.settings.QueueSettings`: rounds, calibrate, slow, seed.

    Raises:
        UserError: the tasks have a single class.
    """
    chosen, loaded = QueueSettings(**settings), _load(tasks, model, device)
    scores = ScoreSettings(chosen.slow, chosen.rounds, chosen.seed)
    heldout = tasks.folder.heldout
    inputs = ScoreInputs(tasks.images, loaded.model, loaded.params, heldout, None, loaded.episodes)
    with _reporter(progress) as reporter:
        builder = QueueBuilder(inputs, tasks.folder.train, scores, reporter)
        built = builder.build(should_calibrate=chosen.calibrate)
    return ReviewQueue(built.items, built.summary, tasks.images)


def create_workspace(name: str | Path, tasks: Tasks, model: Model) -> Workspace:
    """Create a workspace of tasks and a model, which the dashboard and the command line open too.

    Args:
        name: Its name, or a folder.
        tasks: Tasks over an image set that is stored on this machine (:func:`load_images`), not over arrays in memory.
        model: The model.

    Raises:
        UserError: the model does not fit, the images are not stored, or a workspace of another problem has that name.
    """
    with tempfile.TemporaryDirectory() as folder:
        task_folder, model_folder = Path(folder) / "tasks", Path(folder) / "model"
        write_folder(tasks.folder, task_folder)
        save_model(model.stored, model_folder)
        return Workspace(create(locate(str(name)), task_folder, model_folder))


def open_workspace(name: str | Path) -> Workspace:
    """Open a workspace by name or folder.

    Raises:
        UserError: there is no such workspace.
    """
    return Workspace(StoredWorkspace(locate(str(name))))


class Workspace:
    """A workspace: the same results that the dashboard and the command line compute and show.

    Results are stored and found again, so that nothing is computed twice.
    """

    def __init__(self, stored: StoredWorkspace) -> None:
        self.stored = stored

    @cached_property
    def _project(self) -> Project:
        return self.stored.project()

    @property
    def tasks(self) -> Tasks:
        """Return its tasks."""
        return Tasks(self._project.images, self._project.tasks)

    @property
    def model(self) -> Model:
        """Return its model."""
        return Model(self._project.model)

    def evaluate(self, *, device: str = "auto", progress: bool = False) -> pd.DataFrame:
        """Return accuracy and loss of the model on every held-out task."""
        with _reporter(progress) as reporter:
            return evaluation(self.stored, Compute(device=device), reporter).table("heldout.parquet")

    def rank(
        self,
        *,
        method: str = "task-if",
        target: str = "all",
        device: str = "auto",
        progress: bool = False,
        **options: Any,
    ) -> Ranking:
        """Rank as :func:`rank` does, and store the ranking in the workspace."""
        chosen = estimator(method, **options)
        with _reporter(progress) as reporter:
            run = rank_workspace(self.stored, Target.parse(target), chosen, Compute(device=device), reporter)
        return self._ranking(run)

    def scores(self, ranking: str = "") -> Ranking:
        """Return a stored ranking by its run id; left out: the newest one.

        Raises:
            UserError: there is no ranking of the workspace as it is.
        """
        if ranking:
            return self._ranking(self.stored.runs.get(ranking))
        hashes = self._project.hashes.items()
        newest = next((run for run in self.stored.runs.all(RANK) if hashes <= run.config.items()), None)
        if newest is None:
            raise UserError(f"The workspace {self.stored.name} has no ranking.", "Compute one: .rank().")
        return self._ranking(newest)

    def review_queue(self, *, device: str = "auto", progress: bool = False, **settings: Any) -> ReviewQueue:
        """Return the review queue with these settings; without settings, the newest one if there is one."""
        run = None if settings else newest_queue(self.stored)
        if run is None:
            with _reporter(progress) as reporter:
                run = queue(self.stored, QueueSettings(**settings), Compute(device=device), reporter)
        return ReviewQueue(run.table("items.parquet"), run.json("summary.json"), self._project.images)

    def decide(self, decisions: pd.DataFrame, *, reviewer: str) -> int:
        """Write decisions to the log, all of them or none, and return how many.

        Args:
            decisions: Columns as in an export of decisions: kind (task, image or instance), task_id, role, image_id,
                verdict (remove, relabel, keep, unsure), label (the new class), reason.
            reviewer: Who decided, for rows that name nobody.

        Raises:
            UserError: names the first row and field that are wrong; nothing is written then.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "decisions.json"
            decisions.to_json(path, orient="records")
            import_decisions(self.stored, path, reviewer=reviewer)
        return len(decisions)

    def remove(self, *, tasks: Sequence[str] = (), images: Sequence[str] = (), reviewer: str, reason: str = "") -> None:
        """Decide to remove tasks and images.

        Raises:
            UserError: an id is not in the training tasks.
        """
        mark(self.stored, tasks=tasks, images=images, reviewer=reviewer, reason=reason)

    def decisions(self) -> pd.DataFrame:
        """Return every decision that counts, and those that conflict with it."""
        return decision_table(self.stored)

    def changes(self) -> Changes:
        """Return what the decisions remove and relabel."""
        return self.stored.changes()

    def edit(self, method: str = "finetune", *, device: str = "auto", progress: bool = False) -> EditedModel:
        """Edit the model for the decided changes and measure it; the result is stored in the workspace.

        Raises:
            UserError: nothing is decided, or the method does not fit.
        """
        with _reporter(progress) as reporter:
            run = edit_workspace(
                self.stored,
                method,
                self.stored.changes(),
                solver=edit_methods.SOLVE,
                finetune=FINETUNE,
                compute=Compute(device=device),
                progress=reporter,
            )
        figures = run.json("edit.json")
        model = Model(read_model(run.folder / "model"))
        return EditedModel(model, method, Interval(**figures["accuracy_change"]), figures)

    def export(self, folder: str | Path, *, formats: Sequence[str] = FORMATS) -> Path:
        """Write the cleaned task list and what was removed and relabelled.

        Args:
            formats: parquet, csv, json, learn2learn, torchmeta, easyfsl.

        Raises:
            UserError: a format is unknown, or ``folder`` holds something else.
        """
        return export_workspace(self.stored, Path(folder), formats=tuple(formats))

    def _ranking(self, run: Run) -> Ranking:
        tables = {name: run.table(f"{name}.parquet") for name in ("instances", "tasks", "images")}
        return Ranking(Scores(**tables, report=run.json("solver.json")), self._project.images)

    def __repr__(self) -> str:
        return f"Workspace({self.stored.name}: {self.tasks!r}, {self.model!r})"


class _TemporaryWriter(UnsavedSteps):
    """A writer for edits that are returned instead of stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, write: Any) -> None:
        write(self.folder)

    def write_json(self, name: str, value: Any) -> None:
        return

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        return


def _load(tasks: Tasks, model: Model, device: str) -> Loaded:
    check_fit(tasks.images, tasks.folder, model.stored)
    return computing.load(Project(tasks.images, tasks.folder, model.stored), Compute(device=device))


def _grid(images: ImageSet, rows: pd.DataFrame, captions: Sequence[str]) -> ImageGrid:
    positions = [images.index[image_id] for image_id in rows["image_id"]]
    return ImageGrid(np.asarray(images.images[positions]), tuple(captions))


def _pairs(rows: pd.DataFrame, column: str) -> Iterator[tuple[str, float]]:
    return zip(rows["image_id"].astype(str), rows[column].astype(float), strict=True)


def _png(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _interval(interval: Interval, form: str = ".1%") -> str:
    return f"{interval.mean:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
