"""Estimate the effect of removing or relabelling one item, where what-ifs are prepared.

An estimate takes a few tenths of a second, and key presses must not wait for it.
"""

from __future__ import annotations

from core.actions.compute import Compute
from core.actions.preparation import find_preparation
from core.editing.whatif import WhatIfEstimator
from core.review.review_queue import Queue
from core.runtime.errors import UserError
from core.tasks.changes import Changes
from core.ui.edit.results import in_points
from core.ui.shell.background import BackgroundCache
from core.ui.shell.context import Context
from core.ui.whatif.panel import live_estimator

_estimates: BackgroundCache[tuple[str, str, int], list[str]] = BackgroundCache(
    "effect", lambda error: [f"could not be computed: {error}"]
)


def effect_lines(context: Context, queue: Queue, position: int) -> list[str] | None:
    """Return sentences on the estimated effect of each decision.

    Empty where nothing is prepared, None while the estimate is being computed.
    """
    run = find_preparation(context.workspace, Compute())
    if run is None:
        return []
    return _estimates.get((str(run.folder), queue.run_id, position), lambda: _estimate(context, queue, position))


def _estimate(context: Context, queue: Queue, position: int) -> list[str]:
    estimator = live_estimator(context)
    return [] if estimator is None else [line(estimator, *one) for one in choices(queue, position)]


def choices(queue: Queue, position: int) -> list[tuple[str, Changes]]:
    """Return the decisions to estimate: removal, and relabelling to the suggested class."""
    item, to = queue.items[position], int(queue.suggested[position])
    instance = (item.task_id, item.role, item.image_id)
    is_image = item.kind == "image"
    removed = Changes(images=frozenset({item.image_id})) if is_image else Changes(instances=frozenset({instance}))
    found = [("Removed", removed)]
    if to >= 0 and to != queue.given[position]:
        name = queue.names[to]
        changes = (
            Changes(relabelled_images=frozenset({(item.image_id, name)}))
            if is_image
            else Changes(relabelled_instances=frozenset({(*instance, name)}))
        )
        found.append((f"Relabelled to {name}", changes))
    return found


def line(estimator: WhatIfEstimator, what: str, changes: Changes) -> str:
    """Return ``Removed: held-out loss -0.0012 [...], accuracy +0.1 points [...]``."""
    try:
        found = estimator.changes(changes)
    except UserError as error:
        return f"{what}: {error.what}"
    return f"{what}: held-out loss {found.loss_change.text('+.1e')}, accuracy {in_points(found.accuracy_change)}"
