"""Recommend which tasks, images and rows to remove: those that look wrong by the score that is best on these data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from core.actions.compute import Compute, load
from core.influence.basis import ENGINE_VERSION
from core.recommendation.settings import RecommendSettings
from core.recommendation.summary import LEVELS, LevelRecommendation
from core.runtime.distributed import world
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "recommend"
VERSION = 2
"""Raised whenever the results change, so that older recommendations are not reused."""


def newest_recommendation(workspace: Workspace, project: Project) -> Run | None:
    """Return the newest recommendation for the workspace's ``project()``, or None."""
    return next(iter(workspace.runs.all(KIND, _problem_key(project))), None)


def shared_recommendation(workspace: Workspace, project: Project) -> Run | None:
    """Return the newest recommendation, or None; the same on every process."""

    def find() -> list[str]:
        run = newest_recommendation(workspace, project)
        return [] if run is None else [run.id]

    return next(iter(workspace.runs.collect_distributed(world().on_rank_zero(find))), None)


def _problem_key(project: Project) -> dict[str, Any]:
    return {**project.hashes, "engine": ENGINE_VERSION, "version": VERSION}


def cache_key(project: Project, settings: RecommendSettings, compute: Compute) -> dict[str, Any]:
    """Return the cache key of the recommendation with these settings."""
    return {**_problem_key(project), **asdict(settings), "dtype": compute.dtype}


def recommend(workspace: Workspace, settings: RecommendSettings, compute: Compute, progress: Progress) -> Run:
    """Recommend a score by measuring all on injected label noise, or return the run with the same settings.

    The run holds ``tasks.parquet``, ``images.parquet``, ``instances.parquet``, ``candidates.parquet``
    (:class:`core.recommendation.recommend.ScoredLevels`) and ``recommendation.json``: ``levels`` (by level, the
    fields of :class:`core.recommendation.summary.LevelRecommendation`) and ``seconds`` (by part and stage).

    Raises:
        UserError: fewer classes with two images than classes per task.
    """
    project = workspace.project()

    def work(run: RunWriter) -> None:
        from core.recommendation.recommend import recommend as compute_recommendation  # imports scikit-learn

        found = compute_recommendation(load(project, compute), settings, run, progress)
        for level, table in found.tables.items():
            run.write_table(f"{level}.parquet", table)
        run.write_table("candidates.parquet", found.candidates)
        levels = {level: asdict(one) for level, one in found.levels.items()}
        run.write_json("recommendation.json", {"levels": levels, "seconds": found.seconds})

    return workspace.runs.get_or_compute(KIND, cache_key(project, settings, compute), work)


def recommended_levels(run: Run) -> dict[str, LevelRecommendation]:
    """Return what a run recommends for tasks, images and instances."""
    levels = run.json("recommendation.json")["levels"]
    found = {level: LevelRecommendation.from_json(levels[level]) for level in LEVELS}
    if not found["tasks"].proposed:
        return found
    return {level: one if level == "tasks" else one.after_tasks() for level, one in found.items()}


def by_suspicion(run: Run, level: str) -> pd.DataFrame:
    """Return the items of a level, the most suspicious first."""
    return run.table(f"{level}.parquet").sort_values("suspicion", ascending=False, kind="stable", ignore_index=True)
