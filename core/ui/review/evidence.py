"""The evidence on one item: the task in which it looks worst, and the support images that pull it there."""

from __future__ import annotations

import streamlit as st

from core.actions.compute import Compute, Loaded
from core.review.label_evidence import Evidence, evidence
from core.review.review_queue import Queue
from core.ui.shell.background import BackgroundCache
from core.ui.shell.context import Context

_PULLS = 3

_beside: BackgroundCache[tuple[str, str, int], list[str]] = BackgroundCache(
    "evidence", lambda error: [f"could not be found: {error}"]
)


def evidence_lines(context: Context, queue: Queue, position: int) -> list[str] | None:
    """Sentences of evidence; None while they are being worked out."""
    key = (context.project.hashes["model"], str(queue.folder), position)
    return _beside.get(key, lambda: _lines(context, queue, position))


def _lines(context: Context, queue: Queue, position: int) -> list[str]:
    loaded = _loaded("-".join(context.project.hashes.values()), context)
    row = queue.table.iloc[position]
    found = evidence(
        loaded.model,
        loaded.params,
        context.project.tasks.train,
        loaded.episodes,
        str(row["image_id"]),
        str(row["class"]),
    )
    return sentences(found)


def sentences(found: Evidence | None) -> list[str]:
    """The evidence in words."""
    if found is None:
        return ["The image is a query of no training task, so no adapted model was asked about it."]
    lines = [
        f"Looks worst in task {found.task_id}: adapted loss {found.loss:.2f}, "
        f"{found.confidence:.0%} for the given class, seen as {found.seen}"
    ]
    pulls = found.support_influence[found.support_influence["pull"] > 0].head(_PULLS)
    if len(pulls):
        words = ", ".join(
            f"{image_id} (given {name}, {pull:+.2f})"
            for image_id, name, pull in zip(pulls["image_id"], pulls["class"], pulls["pull"], strict=True)
        )
        lines.append(f"Its support images that pull it there most: {words}; in logits, to first order")
    return lines


@st.cache_resource(max_entries=2, show_spinner=False)
def _loaded(problem: str, _context: Context) -> Loaded:
    return Loaded(_context.project, Compute())
