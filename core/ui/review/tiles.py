"""Build one page of the review grid: its constant data, and the decisions that may change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.decisions.causes import CAUSE_WORDS
from core.decisions.records import decision_text
from core.review.review_queue import Queue
from core.review.review_state import ReviewState
from core.ui.grid.atlas import Atlas
from core.ui.shell.text import count

TILE_PX = 84
_KEYS = "1234567890"


def class_keys(queue: Queue, shown: np.ndarray) -> list[tuple[str, int]]:
    """Return which digit key relabels to which class, the same on all pages of a filter.

    With at most ten classes: all of them, with a class whose name is a digit on that digit. With more: the classes
    suggested or given most often among the shown items.
    """
    used = Counter(queue.suggested[shown][queue.suggested[shown] >= 0].tolist())
    used.update(queue.given[shown][queue.given[shown] >= 0].tolist())
    everywhere = set(queue.given.tolist()) | set(queue.suggested.tolist()) - {-1}
    classes = sorted(everywhere) if len(everywhere) <= len(_KEYS) else sorted(label for label, _ in used.most_common(9))
    named = {queue.names[label]: label for label in classes}
    if all(name in _KEYS for name in named):
        return sorted(named.items(), key=lambda one: _KEYS.index(one[0]))
    return list(zip(_KEYS, classes, strict=False))


def page_data(
    queue: Queue, shown: np.ndarray, packed: str, page: int, size: int, stamp: str, pictures: Atlas
) -> dict[str, Any]:
    """Return the constant data of page number ``page`` of the items ``shown``."""
    return {
        "stamp": stamp,
        "sheet": pictures.name,
        "side": TILE_PX,
        "label": f"Review queue, page {page + 1}",
        "run": queue.run_id,
        "names": list(queue.names),
        "classes": class_keys(queue, shown),
        "causes": list(CAUSE_WORDS.items()),
        "tiles": [_tile(queue, int(at)) for at in shown[page * size : (page + 1) * size]],
        "set": packed,
        "page": page,
        "pages": max(1, -(-len(shown) // size)),
        "size": size,
        "total": len(shown),
    }


def _tile(queue: Queue, at: int) -> list[Any]:
    """Return ``[position, kind, task, role, image, given, suggested, its probability, note, has_likelier_class]``."""
    row, item, note = queue.table.iloc[at], queue.items[at], f"rank {at + 1:,}"
    wrong, suggested_p = (
        None if math.isnan(row[column]) else round(float(row[column]), 3)
        for column in ("probability", "suggested_probability")
    )
    if wrong is not None:
        note += f"; label error with probability {100 * wrong:.0f} %, an estimate"
    if item.kind == "instance":
        note += f"; {item.role} of task {item.task_id}"
    return [
        at, item.kind, item.task_id, item.role, item.image_id,
        int(queue.given[at]), int(queue.suggested[at]), suggested_p, note, bool(queue.has_likelier_class[at]),
    ]  # fmt: skip


def page_state(queue: Queue, review: ReviewState, positions: Sequence[int]) -> dict[int, list[Any]]:
    """Return the decisions at positions.

    ``{position: [verdict, label, reviewer, [[reviewer, opinion], ...] or null, number of comments, cause]}``
    """
    state = {}
    for at in positions:
        entry, conflict, comments = review.entries.get(at), review.conflicts.get(at), review.comments.get(at, 0)
        if entry or conflict or comments:
            state[at] = [
                entry.verdict if entry else "",
                entry.label if entry else None,
                entry.reviewer if entry else "",
                [[one.reviewer, decision_text(one, queue.names)] for one in conflict] if conflict else None,
                comments,
                entry.cause if entry else "",
            ]
    return state


def notice(state: ReviewState, reviewer: str) -> str:
    """Return a message on who else is reviewing."""
    others = sorted(state.active_reviewers(reviewer).items(), key=lambda one: -one[1])
    return "; ".join(f"{name} decided {count(number, 'item')} in the last 5 minutes" for name, number in others[:3])
