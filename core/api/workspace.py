"""Workspaces in the Python API: the results that the dashboard and the command line compute and show."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from core.actions import edit as edit_action
from core.actions import rank as ranking_action
from core.actions.compute import Compute
from core.actions.decide import mark
from core.actions.edit_results import edit_result
from core.actions.evaluate import evaluation
from core.actions.export import export
from core.actions.export_decisions import decision_table
from core.actions.import_decisions import import_decisions
from core.actions.queue import newest_queue, queue
from core.actions.recommend import by_suspicion, newest_recommendation, recommend, recommended_levels
from core.api.display import (
    EditedModel,
    Model,
    ProgressBars,
    Ranking,
    Recommendation,
    ReviewQueue,
    check_path,
    check_type,
)
from core.api.memory import Tasks
from core.checkpoints.model import load_model, save_model
from core.decisions.causes import OptionalCause, named_cause
from core.decisions.records import check_reviewer
from core.influence.methods import estimator
from core.influence.targets import Target
from core.recommendation.settings import RecommendSettings
from core.recommendation.summary import LEVELS
from core.review.settings import QueueSettings
from core.runtime.errors import UserError
from core.runtime.settings import settings_of
from core.tasks.changes import Changes, id_list
from core.tasks.generate import write_folder
from core.tasks.tasklist import FORMATS
from core.workspace import workspace as stored_workspace
from core.workspace.runs import Run, recomputing
from core.workspace.workspace import Project, create, locate, newest_ranking


def create_workspace(name: str | Path, tasks: Tasks, model: Model) -> Workspace:
    """Create a workspace of tasks and a model, which the dashboard and the command line open too.

    Args:
        name: Its name, or a folder.
        tasks: Tasks over an image set that is stored on this machine (:func:`load_images`), not over arrays in memory.

    Raises:
        UserError: the model does not fit, the images are not stored, or a workspace of another problem has that name.
    """
    check_type("tasks", tasks, Tasks, "draw_tasks or load_tasks")
    check_type("model", model, Model, "train or load_model")
    with tempfile.TemporaryDirectory() as folder:
        task_folder, model_folder = Path(folder) / "tasks", Path(folder) / "model"
        write_folder(tasks.folder, task_folder)
        save_model(model.stored, model_folder)
        return Workspace(create(_folder(name), task_folder, model_folder))


def open_workspace(name: str | Path) -> Workspace:
    """Open a workspace by name or folder; raise UserError if there is none."""
    return Workspace(stored_workspace.Workspace(_folder(name)))


def _folder(name: str | Path) -> Path:
    path = check_path("name", name)
    return locate(name) if isinstance(name, str) else path


class Workspace:
    """A workspace: its tasks and model, decisions, and results, which are stored and reused."""

    def __init__(self, stored: stored_workspace.Workspace) -> None:
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
        with closing(ProgressBars(progress)) as bars:
            return evaluation(self.stored, Compute(device=device), bars).table("heldout.parquet")

    def rank(
        self,
        *,
        method: str = "task-if",
        target: str = "all",
        device: str = "auto",
        progress: bool = False,
        **options: Any,
    ) -> Ranking:
        """Rank as :func:`core.api.rank` does, and store the ranking in the workspace."""
        chosen, compute = estimator(method, **options), Compute(device=device)
        with closing(ProgressBars(progress)) as bars:
            return self._ranking(ranking_action.ranking(self.stored, Target.parse(target), chosen, compute, bars))

    def scores(self, ranking: str = "") -> Ranking:
        """Return a stored ranking by its run id, by default the newest one; raise UserError if there is none."""
        run = self.stored.runs.get(ranking) if ranking else newest_ranking(self.stored, self._project)
        if run is None:
            raise UserError(f"The workspace {self.stored.name} has no ranking.", "Compute one: .rank().")
        return self._ranking(run)

    def review_queue(self, *, device: str = "auto", progress: bool = False, **settings: Any) -> ReviewQueue:
        """Return the review queue with these settings; without settings, the newest one if there is one."""
        run = None if settings else newest_queue(self.stored)
        if run is None:
            with closing(ProgressBars(progress)) as bars:
                run = queue(self.stored, settings_of(QueueSettings, settings), Compute(device=device), bars)
        return ReviewQueue(run.table("items.parquet"), run.json("summary.json"), self._project.images)

    def recommend(self, *, device: str = "auto", progress: bool = False, **settings: Any) -> Recommendation:
        """Return what looks wrong and what to remove; without settings, the newest recommendation if there is one."""
        run = None if settings else newest_recommendation(self.stored, self._project)
        if run is None:
            chosen, compute = settings_of(RecommendSettings, settings), Compute(device=device)
            with closing(ProgressBars(progress)) as bars:
                run = recommend(self.stored, chosen, compute, bars)
        tables = {level: by_suspicion(run, level) for level in LEVELS}
        return Recommendation(**tables, candidates=run.table("candidates.parquet"), levels=recommended_levels(run))

    def recomputing(self, run_id: str) -> AbstractContextManager[None]:
        """Return a context in which the stored result of this id counts as missing, so that it is computed again.

        The stored one, for example one that came with a demo, is replaced once the new one is finished.
        """
        return recomputing(self.stored.runs.get(run_id))

    def decide(self, decisions: pd.DataFrame, *, reviewer: str) -> int:
        """Write decisions to the log, all of them or none, and return how many.

        Args:
            decisions: Columns as in an export of decisions: kind (task, image or instance), task_id, role, image_id,
                verdict (remove, relabel, keep, unsure), label (the new class), cause (label-error, harmful, duplicate,
                other), reason (any text).
            reviewer: Who writes them, and made those of rows that name no reviewer.

        Raises:
            UserError: a row is invalid, and the message names the first such row and its field, or the reviewer has no
                name; nothing is written.
        """
        check_type("decisions", decisions, pd.DataFrame, "pandas")
        check_reviewer(reviewer)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "decisions.json"
            decisions.to_json(path, orient="records")
            import_decisions(self.stored, path, reviewer=reviewer)
        return len(decisions)

    def remove(
        self,
        *,
        tasks: Sequence[str] = (),
        images: Sequence[str] = (),
        reviewer: str,
        cause: OptionalCause = "",
        reason: str = "",
    ) -> None:
        """Decide to remove tasks and images.

        Args:
            cause: label-error, harmful, duplicate or other; only a label-error counts as a label error found. Default:
                the one that ``reason`` names, else other.
            reason: Any text.

        Raises:
            UserError: an id or the cause is unknown, or the reviewer has no name.
        """
        tasks, images = id_list("tasks", tasks), id_list("images", images)
        why = cause or named_cause(reason) or "other"
        mark(self.stored, tasks=tasks, images=images, reviewer=reviewer, cause=why, reason=reason)

    def decisions(self) -> pd.DataFrame:
        """Return every decision that counts, and those that conflict with it."""
        return decision_table(self.stored)

    def changes(self) -> Changes:
        """Return what the decisions remove and relabel."""
        return self.stored.changes()

    def edit(
        self, method: str = "finetune", *, device: str = "auto", progress: bool = False, **settings: Any
    ) -> EditedModel:
        """Edit the model for the decided changes, and measure it and its control; both are stored in the workspace.

        The control is the same procedure without the changes, computed once.

        Args:
            settings: Of the method, as for :func:`core.actions.edit.named_settings`.

        Raises:
            UserError: no changes are decided, or the method is unknown, does not fit, or has no such setting.
        """
        options = {"compute": Compute(device=device), **edit_action.named_settings(method, settings)}
        with closing(ProgressBars(progress)) as bars:
            run = edit_action.edit(self.stored, method, self.stored.changes(), progress=bars, **options)
        found = edit_result(self.stored, run)
        return EditedModel(Model(load_model(run.folder / "model")), method, found.figures, found.seconds, found.effect)

    def export(self, folder: str | Path, *, formats: Sequence[str] = FORMATS) -> Path:
        """Write the cleaned task list and what was removed and relabelled.

        Args:
            formats: parquet, csv, json, learn2learn, torchmeta, easyfsl.

        Raises:
            UserError: a format is unknown, or ``folder`` holds something else.
        """
        chosen = (formats,) if isinstance(formats, str) else tuple(formats)
        return export(self.stored, check_path("folder", folder), formats=chosen)

    def _ranking(self, run: Run) -> Ranking:
        tables = {name: run.table(f"{name}.parquet") for name in ("instances", "tasks", "images")}
        return Ranking(**tables, report=run.json("solver.json"), pixels=self._project.images)

    def __repr__(self) -> str:
        return f"Workspace({self.stored.name}: {self.tasks!r}, {self.model!r})"
