"""Search for duplicate images, and for leaks between support and query and between training and held-out tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.review.duplicate_tables import duplicate_summary, find_leaks, pair_table
from core.review.duplicates import find_duplicates
from core.runtime.progress import Progress, format_count
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "duplicates"
VERSION = 1
"""Raised whenever the results change, so that older ones are not reused."""


def cache_key(project: Project) -> dict[str, Any]:
    """Return the cache key of the search in :class:`core.workspace.runs.Runs`."""
    return {name: project.hashes[name] for name in ("data", "tasks", "heldout")} | {"version": VERSION}


def newest_duplicates(workspace: Workspace, project: Project) -> Run | None:
    """Return the finished search for the present problem, or None."""
    return workspace.runs.find(KIND, cache_key(project))


def duplicates(workspace: Workspace, progress: Progress) -> Run:
    """Search the images of the training and held-out tasks.

    The run holds ``pairs.parquet``, ``leaks.parquet`` and ``summary.json`` (:mod:`core.review.duplicate_tables`).
    """
    project = workspace.project()

    def search(run: RunWriter) -> None:
        images, train, heldout = project.images, project.tasks.train.rows, project.tasks.heldout.rows
        used = set(train["image_id"]) | set(heldout["image_id"])
        positions = np.array(sorted(images.index[image] for image in used), np.int64)
        progress.stage("searching for duplicates", 3 * len(positions))
        with run.timed("duplicates"):
            duplicates = find_duplicates(images.images, positions, progress.advance)
        ids = images.ids[positions].astype(object)
        with run.timed("leaks"):
            leaks = find_leaks(duplicates, ids, train, heldout)
        pairs = pair_table(duplicates, ids, train, heldout)
        run.write_table("pairs.parquet", pairs)
        run.write_table("leaks.parquet", leaks)
        run.write_json("summary.json", duplicate_summary(duplicates, pairs, leaks))

    return workspace.runs.get_or_compute(KIND, cache_key(project), search)


def summary_text(run: Run) -> list[str]:
    """Return sentences on what a search found."""
    summary = run.json("summary.json")
    leaks = summary["leaks"]
    return [
        f"{summary['images']:,} images of the tasks: {format_count(summary['pairs'], 'pair')} of duplicates in "
        f"{format_count(summary['groups'], 'group')}, {summary['exact']:,} identical and {summary['near']:,} nearly "
        "identical",
        f"{format_count(summary['contradictions'], 'pair')} with different given classes",
        f"leaks: {leaks['support-query']:,} between support and query of a training task, "
        f"{leaks['support-query, held out']:,} of a held-out task, "
        f"{leaks['train-heldout']:,} between training and held-out tasks; "
        f"{summary['leaks_with_different_classes']:,} of them with different given classes",
        f"near means closer than {summary['threshold']:.2f} of the distance to the eighth neighbour; by chance, one "
        "image in the whole set is expected to be that close"
        if summary["threshold"]
        else "too few images for near-duplicates: only identical ones were searched",
    ]
