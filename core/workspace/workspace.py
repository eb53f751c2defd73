"""Open and create workspaces: one problem (tasks and a model), its results, and the decisions of its reviewers.

::

    workspace.json       format and name
    tasks/               a folder of tasks (core.tasks.generate)
    model/               a model (core.checkpoints.model)
    runs/                results (core.workspace.runs)
    decisions.sqlite     the decision log (core.decisions.log)
    jobs/                long work started from the dashboard (core.workspace.jobs)
    sets/                named sets of changes (core.workspace.whatif_sets)
    exports/             cleaned task lists
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from core.checkpoints.model import TRAJECTORY, Model, load_model, load_trajectory
from core.data import ImageSet
from core.decisions.checks import class_name
from core.decisions.log import DecisionLog
from core.influence.basis import ENGINE_VERSION
from core.maml.training import Snapshot
from core.review.saved_views import damaged_views
from core.runtime.errors import UserError
from core.runtime.files import home, library, write_json
from core.runtime.replacing import copy_folder
from core.runtime.stored import OPEN, Text, read_stored
from core.tasks.changes import Changes
from core.tasks.generate import TaskFolder, read_folder
from core.workspace.jobs import Jobs
from core.workspace.leftovers import delete_leftovers, delete_temporaries
from core.workspace.runs import Run, Runs
from core.workspace.whatif_sets import Sets

FORMAT = 1
_OTHER_FORMAT = "Restore the file; if a newer version of TaskLens wrote it, update TaskLens."
RANKING_KIND = "rank"
"""The kind of the runs that hold a ranking."""


class WorkspaceFile(TypedDict):
    """``workspace.json``."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: Literal[1]
    about: NotRequired[Text]


@dataclass(frozen=True, eq=False)
class Project:
    """A problem in memory: images, tasks and a model that fit together."""

    images: ImageSet
    tasks: TaskFolder
    model: Model
    snapshots: bool = False
    """Whether snapshots of the model's training are stored."""

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Return the content hashes that start every cache key of this problem."""
        hashes = {
            "data": self.images.hash,
            "tasks": self.tasks.train.hash,
            "heldout": self.tasks.heldout.hash,
            "model": self.model.hash,
        }
        validation = self.tasks.validation
        return hashes if validation is None else hashes | {"validation": validation.hash}


class Workspace:
    """A workspace folder that exists; ``waits`` is that of :class:`core.workspace.runs.Runs`.

    ``about`` describes the problem in one sentence; it may be empty.

    Raises:
        UserError: there is no workspace at ``folder``, or it has a newer format.
    """

    def __init__(self, folder: Path, *, waits: bool = False) -> None:
        self.folder = folder.resolve()
        try:
            described = read_stored(self.folder / "workspace.json", WorkspaceFile, fix=_OTHER_FORMAT)
        except UserError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise UserError(
                f"The workspace {self.folder} does not exist.", "Check the name, or create it with the open command."
            ) from error
        self.name, self.about = self.folder.name, described.get("about", "")
        self.runs = Runs(self.folder / "runs", waits=waits)
        self.sets = Sets(self.folder / "sets")
        self.jobs = Jobs(self.folder / "jobs")

    def project(self) -> Project:
        """Read the problem; raise UserError if something is missing or damaged, or the model does not fit the tasks."""
        tasks, model = read_folder(self.folder / "tasks"), load_model(self.folder / "model")
        images = tasks.images()
        check_fit(images, tasks, model)
        return Project(images, tasks, model, (self.folder / "model" / TRAJECTORY).is_file())

    def trajectory(self) -> list[Snapshot]:
        """Return the snapshots of the model's training; raise UserError if none are stored."""
        folder = self.folder / "model"
        return load_trajectory(folder, load_model(folder).spec)

    @cached_property
    def decisions(self) -> DecisionLog:
        """Return its decision log."""
        return DecisionLog(self.folder / "decisions.sqlite")

    def damaged(self) -> list[UserError]:
        """Return an error for each file that lists leave out because it is damaged: of runs, sets, views and jobs."""
        views = damaged_views(self.folder)
        return [*self.runs.damaged(), *self.sets.damaged(), *views, *self.jobs.damaged()]

    def delete_leftovers(self) -> None:
        """Delete unfinished runs and temporary files that nobody has touched for long (:mod:`.leftovers`)."""
        delete_leftovers(self.runs.folder)
        parts = (self.folder / name for name in ("", "tasks", "model", "sets", "views", "exports"))
        delete_temporaries(parts)

    def changes(self) -> Changes:
        """Return the decided removals and relabels, without conflicts; raise UserError if a new class is unknown."""
        contested = self.decisions.conflicts()
        decided = {item: entry for item, entry in self.decisions.current().items() if item not in contested}
        removed = [item for item, entry in decided.items() if entry.verdict == "remove"]
        relabelled = [(item, entry.label) for item, entry in decided.items() if entry.verdict == "relabel"]
        named = [(item, class_name(self.project().images.class_names, label)) for item, label in relabelled]
        return Changes(
            frozenset(item.task_id for item in removed if item.kind == "task"),
            frozenset(item.image_id for item in removed if item.kind == "image"),
            frozenset((item.task_id, item.role, item.image_id) for item in removed if item.kind == "instance"),
            frozenset((item.image_id, name) for item, name in named if item.kind == "image"),
            frozenset(
                (item.task_id, item.role, item.image_id, name) for item, name in named if item.kind == "instance"
            ),
        )


def check_fit(images: ImageSet, tasks: TaskFolder, model: Model) -> None:
    """Raise UserError if the number of classes or the shape of images differs between the model and the tasks."""
    if model.spec.ways != tasks.train.ways:
        raise UserError(
            f"The model is {model.spec.ways}-way, the tasks are {tasks.train.ways}-way.",
            "Use a model trained on tasks of the same number of classes.",
        )
    if tuple(model.spec.shape) != images.shape:
        raise UserError(
            f"The model takes images of shape {tuple(model.spec.shape)}, {images.name} has {images.shape}.",
            "Use the images that the model was trained on.",
        )


def runs_of_problem(workspace: Workspace, project: Project, kind: str) -> list[Run]:
    """Return the runs of a kind that the present engine computed for the workspace's ``project()``, newest first."""
    return workspace.runs.all(kind, {**project.hashes, "engine": ENGINE_VERSION})


def newest_ranking(workspace: Workspace, project: Project) -> Run | None:
    """Return the newest ranking of the workspace's present problem, or None."""
    return next(iter(runs_of_problem(workspace, project, RANKING_KIND)), None)


def library_jobs() -> Jobs:
    """Return the jobs that belong to no workspace: importing images, drawing tasks, training a first model."""
    return Jobs(library() / "jobs")


def locate(name: str) -> Path:
    """Return ``name`` if it is a path, else the folder of that name in :func:`home`; raise UserError if it is empty."""
    if not name.strip():
        raise UserError("The name of the workspace is empty.", "Give it a name.")
    return Path(name) if "/" in name or name in (".", "..") else home() / name


def all_workspaces() -> list[Path]:
    """Return the workspaces in :func:`home`, ordered by name."""
    return sorted(path.parent for path in home().glob("*/workspace.json"))


def create(folder: Path, tasks: Path, model: Path, *, about: dict[str, Any] | None = None) -> Workspace:
    """Create a workspace from a folder of tasks and a model; both are checked, then copied.

    Raises:
        UserError: the model does not fit the tasks, or ``folder`` is a workspace of another problem or cannot be one.
    """
    if folder.resolve() == library().resolve():
        raise UserError(f"A workspace cannot be called {folder.name!r}.", "Choose another name.")
    task_folder, loaded_model = read_folder(tasks), load_model(model)
    images = task_folder.images()
    check_fit(images, task_folder, loaded_model)
    copies = ((tasks, folder / "tasks"), (model, folder / "model"))
    for source, copy in copies:
        if source.resolve() == copy.resolve() and not (folder / "workspace.json").exists():
            raise UserError(
                f"The workspace {folder} would copy {source} to itself.", "Choose another name or folder for it."
            )
    if (folder / "workspace.json").exists():
        workspace = Workspace(folder)
        wanted, existing = Project(images, task_folder, loaded_model).hashes, workspace.project().hashes
        if wanted != {**existing, "data": wanted["data"]}:
            raise UserError(f"{folder} is already a workspace of another problem.", "Choose another name.")
        return workspace
    for source, copy in copies:
        copy_folder(source, copy, ignore=lambda name: name.startswith((".", "state.")))
    write_json(folder / "workspace.json", {"format": FORMAT, **(about or {})})
    return Workspace(folder)
