"""Compute in the background what the details of an item say about removing or relabelling it, and why it is suspicious.

Either takes a few tenths of a second, and key presses must not wait for it.
"""

from __future__ import annotations

import streamlit as st

from core.actions.compute import Compute, load
from core.actions.preparation import find_preparation
from core.editing.whatif import WhatIfEstimator
from core.maml.loaded import Loaded
from core.review.label_explanation import explain_label
from core.review.review_queue import Queue
from core.runtime.errors import UserError
from core.tasks.changes import Changes
from core.ui.edit.results import in_points
from core.ui.shell.background import BackgroundCache
from core.ui.shell.context import Context
from core.ui.whatif.panel import live_estimator

_SUPPORT_IMAGES = 3

_estimates, _explanations = (
    BackgroundCache[tuple[str, str, int], list[str]](name, title, lambda error: [f"could not be computed: {error}"])
    for name, title in (("effect", "The estimated effect"), ("explanation", "The explanation"))
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
    is_image, instance = item.kind == "image", (item.task_id, item.role, item.image_id)
    removed = Changes(images=frozenset({item.image_id})) if is_image else Changes(instances=frozenset({instance}))
    if to < 0 or to == queue.given[position]:
        return [("Removed", removed)]
    name = queue.names[to]
    relabelled = (
        Changes(relabelled_images=frozenset({(item.image_id, name)}))
        if is_image
        else Changes(relabelled_instances=frozenset({(*instance, name)}))
    )
    return [("Removed", removed), (f"Relabelled to {name}", relabelled)]


def line(estimator: WhatIfEstimator, what: str, changes: Changes) -> str:
    """Return ``Removed: held-out loss -0.0012 [...], accuracy +0.1 points [...]``."""
    try:
        found = estimator.changes(changes)
    except UserError as error:
        return f"{what}: {error.what}"
    return f"{what}: held-out loss {found.loss_change.text('+.1e')}, accuracy {in_points(found.accuracy_change)}"


def explanation_lines(context: Context, queue: Queue, position: int) -> list[str] | None:
    """Return the task in which an item's score is worst, and the support images that influence it there, as sentences.

    None while it is being computed.
    """
    key = (context.project.hashes["model"], str(queue.folder), position)
    return _explanations.get(key, lambda: _explain(context, queue, position))


def _explain(context: Context, queue: Queue, position: int) -> list[str]:
    loaded, tasks = _loaded("-".join(context.project.hashes.values()), context), context.project.tasks.train
    image, given = queue.items[position].image_id, str(queue.table["class"].iloc[position])
    found = explain_label(loaded.model, loaded.params, tasks, loaded.episodes, image, given)
    if found is None:
        return ["The image is not a query of any training task, so no adapted model predicts it."]
    lines = [
        f"Most suspicious in task {found.task_id}: adapted loss {found.loss:.2f}, "
        f"probability {found.confidence:.0%} of the given class, predicted as {found.predicted}"
    ]
    influential = found.support_influence[found.support_influence["influence"] > 0].head(_SUPPORT_IMAGES)
    words = ", ".join(
        f"{row['image_id']} (given {row['class']}, {row['influence']:+.2f})" for row in influential.to_dict("records")
    )
    if words:
        lines.append(
            f"Support images with the largest influence towards that class: {words}; in logits, to first order"
        )
    return lines


@st.cache_resource(max_entries=2, show_spinner=False)
def _loaded(problem: str, _context: Context) -> Loaded:
    return load(_context.project, Compute())
