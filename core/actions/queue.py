"""Build the review queue: every suspected label error, most suspicious first, and how many errors remain."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict
from typing import Any

from core.actions.compute import Compute, load
from core.decisions.causes import causes_text
from core.decisions.export_tables import removal_counts
from core.decisions.log import Entry, Item
from core.decisions.queue_decisions import QueueDecisions, QueuePositions, queue_items
from core.influence.basis import ENGINE_VERSION
from core.review.build_queue import BuiltQueue, build_review_queue
from core.review.filters import Filters, filtered_positions
from core.review.forecast import forecast
from core.review.member_scores import ScoreInputs
from core.review.review_queue import Queue
from core.review.review_state import read_state
from core.review.settings import QueueSettings
from core.runtime.progress import Progress, format_count
from core.runtime.replacing import write_array
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "queue"
VERSION = 2
"""Raised whenever the results change, so that older queues are not reused."""


def newest_queue(workspace: Workspace) -> Run | None:
    """Return the newest finished queue for the present problem, or None."""
    return next(iter(workspace.runs.all(KIND, _problem_key(workspace.project()))), None)


def _problem_key(project: Project) -> dict[str, Any]:
    return {**project.hashes, "engine": ENGINE_VERSION, "version": VERSION}


def cache_key(project: Project, settings: QueueSettings, compute: Compute) -> dict[str, Any]:
    """Return the cache key of the queue with these settings."""
    return {**_problem_key(project), **asdict(settings), "dtype": compute.dtype}


def build_queue(project: Project, settings: QueueSettings, compute: Compute, progress: Progress) -> BuiltQueue:
    """Build the review queue as :func:`queue` does, without storing it."""
    loaded, tasks = load(project, compute), project.tasks
    inputs = ScoreInputs(project.images, loaded.model, loaded.params, tasks.heldout, loaded.episodes)
    return build_review_queue(inputs, tasks.train, settings, progress)


def queue(workspace: Workspace, settings: QueueSettings, compute: Compute, progress: Progress) -> Run:
    """Build the review queue, or return the run of one with the same settings.

    The run holds ``items.parquet``, ``map.parquet``, ``features.npy`` and ``summary.json``
    (:class:`core.review.build_queue.BuiltQueue`), and if calibrated ``candidates.parquet`` and ``curves.parquet``.

    Raises:
        UserError: too few classes or images to compare a label with others.
    """
    project = workspace.project()

    def build(run: RunWriter) -> None:
        built = build_queue(project, settings, compute, progress)
        run.write_table("items.parquet", built.items)
        run.write_table("map.parquet", built.map)
        run.write(lambda folder: write_array(folder / "features.npy", built.features))
        if built.calibration:
            run.write_table("candidates.parquet", built.calibration.candidates)
            run.write_table("curves.parquet", built.calibration.curves)
        run.write_json("summary.json", built.summary)

    return workspace.runs.get_or_compute(KIND, cache_key(project, settings, compute), build)


def decisions_on(workspace: Workspace, items: Sequence[Item]) -> QueueDecisions:
    """Return which items of a queue are decided, and which labels were found wrong, found right, or are open."""
    log = workspace.decisions
    return QueuePositions(items).decisions(log.current(), log.conflicts())


def filtered_items(
    workspace: Workspace, run: Run, filters: Filters, most: int
) -> list[tuple[dict[Hashable, Any], Entry | None]]:
    """Return the first ``most`` items of a queue that pass the filters, in their order.

    Each is a row of ``items.parquet`` with the decision that counts for it; of an item in conflict the newest one.
    """
    project = workspace.project()
    queue = Queue.of_table(run.folder, run.table("items.parquet"), project.images.class_names)
    state = read_state(workspace.decisions, queue, None)
    positions = filtered_positions(queue, state, filters, project.tasks.train)[:most]
    rows = queue.table.iloc[positions].to_dict("records")
    return [(row, state.entries.get(int(at))) for row, at in zip(rows, positions, strict=True)]


def remaining_errors_text(workspace: Workspace, run: Run) -> list[str]:
    """Return sentences on how many items are decided, how many errors are left, and what else is removed."""
    items = run.table("items.parquet")
    decisions = decisions_on(workspace, queue_items(items))
    errors = decisions.errors_found
    lines = [f"{decisions.decided:,} of {len(items):,} items decided, {format_count(errors, 'label error')} found"]
    expected = forecast(items, decisions.is_wrong)
    if expected is not None:
        left = expected.remaining_errors(errors)
        errors_left = format_count(round(left.estimate), "label error")
        lines.append(f"estimate: {errors_left} left [{left.low:,.0f}, {left.high:,.0f}] (90 % interval)")
    others = {cause: number for cause, number in removal_counts(workspace.decisions).items() if cause != "label-error"}
    if others:
        lines.append(f"images and rows removed for other causes ({causes_text(others)})")
    return lines


def queue_summary_text(run: Run) -> list[str]:
    """Return sentences on how a queue was built."""
    summary = run.json("summary.json")
    kind = "images" if summary["level"] == "image" else "rows of tasks"
    described = f"{summary['items']:,} {kind}, ranked by {summary['ranking']}"
    if not summary["calibrated"]:
        return [f"{described}; not calibrated on injected errors"]
    means = run.table("candidates.parquet").groupby("candidate")["average_precision"].mean()
    best = ", ".join(f"{name} {value:.3f}" for name, value in means.sort_values(ascending=False).head(4).items())
    return [described, f"average precision on injected errors: {best}"]
