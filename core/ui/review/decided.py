"""What is decided by now, as a table."""

from __future__ import annotations

import pandas as pd

from core.decisions.log import Item
from core.ui.shell.context import Context

_COLUMNS = ["kind", "task_id", "role", "image_id", "decision", "reviewer", "at", "reason", "source"]


def decided_items(context: Context) -> pd.DataFrame:
    """Every item that is removed or relabelled, newest first; ``decision`` says which, and what is in conflict."""
    contested = context.workspace.decisions.conflicts()
    names = dict(enumerate(context.project.images.class_names))
    rows = []
    for item, entry in context.workspace.decisions.current().items():
        if entry.verdict not in ("remove", "relabel"):
            continue
        new = "?" if entry.label is None else names.get(entry.label, "?")
        words = "removed" if entry.verdict == "remove" else f"→ {new}"
        if item in contested:
            words += " (in conflict: left out)"
        where = (item.kind, item.task_id, item.role, item.image_id)
        rows.append((*where, words, entry.reviewer, entry.at, entry.reason, entry.source))
    return pd.DataFrame(rows[::-1], columns=_COLUMNS)


def items_of(decided: pd.DataFrame) -> list[Item]:
    return [Item(row.kind, row.task_id, row.role, row.image_id) for row in decided.itertuples()]
