"""Explain why an item is suspicious.

The explanation is the task in which its score is worst, and the support images that influence it there.
"""

from __future__ import annotations

import streamlit as st

from core.actions.compute import Compute, load
from core.maml.loaded import Loaded
from core.review.label_explanation import LabelExplanation, explain_label
from core.review.review_queue import Queue
from core.ui.shell.background import BackgroundCache
from core.ui.shell.context import Context

_SUPPORT_IMAGES = 3

_explanations: BackgroundCache[tuple[str, str, int], list[str]] = BackgroundCache(
    "explanation", lambda error: [f"could not be computed: {error}"]
)


def explanation_lines(context: Context, queue: Queue, position: int) -> list[str] | None:
    """Return the explanation of an item as sentences; None while it is being computed."""
    key = (context.project.hashes["model"], str(queue.folder), position)
    return _explanations.get(key, lambda: _lines(context, queue, position))


def _lines(context: Context, queue: Queue, position: int) -> list[str]:
    loaded = _loaded("-".join(context.project.hashes.values()), context)
    row = queue.table.iloc[position]
    found = explain_label(
        loaded.model,
        loaded.params,
        context.project.tasks.train,
        loaded.episodes,
        str(row["image_id"]),
        str(row["class"]),
    )
    return sentences(found)


def sentences(found: LabelExplanation | None) -> list[str]:
    """Return an explanation in words."""
    if found is None:
        return ["The image is not a query of any training task, so no adapted model predicts it."]
    lines = [
        f"Most suspicious in task {found.task_id}: adapted loss {found.loss:.2f}, "
        f"probability {found.confidence:.0%} of the given class, predicted as {found.predicted}"
    ]
    influential = found.support_influence[found.support_influence["influence"] > 0].head(_SUPPORT_IMAGES)
    if len(influential):
        words = ", ".join(
            f"{image_id} (given {name}, {value:+.2f})"
            for image_id, name, value in zip(
                influential["image_id"], influential["class"], influential["influence"], strict=True
            )
        )
        lines.append(
            f"Support images with the largest influence towards that class: {words}; in logits, to first order"
        )
    return lines


@st.cache_resource(max_entries=2, show_spinner=False)
def _loaded(problem: str, _context: Context) -> Loaded:
    return load(_context.project, Compute())
