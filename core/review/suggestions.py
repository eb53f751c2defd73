"""Decisions that a review queue suggests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from core.data import ImageSet
from core.decisions.checks import class_number
from core.decisions.queue_decisions import QueuePositions, queue_items
from core.decisions.records import Decision, Entry, Item
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList


def suggested_relabels(
    items: pd.DataFrame, run_id: str, tasks: TaskList, images: ImageSet, task_id: str, least_probability: float
) -> list[Decision]:
    """Return a relabel decision for every row of a task for which a queue suggests another class.

    A suggestion for an image applies to each row that shows it; one for the row itself takes precedence. Each decision
    is about one row of this task, whatever the other tasks say about the image.

    Args:
        items: ``items.parquet`` of the queue.
        run_id: The queue's run, the source of the decisions.
        least_probability: Least probability that the suggested class is right; an unknown probability counts as 0.

    Raises:
        UserError: there is no such task.
    """
    rows = tasks.select([task_id]).rows
    is_likely = items["suggested_probability"].fillna(0).ge(least_probability)
    items = items[items["image_id"].isin(rows["image_id"]) & is_likely]
    of_images, of_rows = items[items["level"] == "image"], items[items["level"] == "instance"]
    of_rows = of_rows[of_rows["task_id"] == task_id]
    by_image = dict(zip(of_images["image_id"], of_images["suggested"], strict=True))
    by_row = of_rows.set_index(["role", "image_id"])["suggested"].to_dict()
    decisions = []
    for role, image_id, given in zip(rows["role"], rows["image_id"], rows["class"], strict=True):
        name = by_row.get((role, image_id), by_image.get(image_id, given))
        if name != given:
            item = Item("instance", task_id, role, image_id)
            label = class_number(images, name)
            decisions.append(Decision(item, "relabel", label, "as suggested", source=run_id))
    return decisions


def undecided(decisions: Sequence[Decision], current: Mapping[Item, Entry]) -> list[Decision]:
    """Return the decisions about rows of tasks that have no final decision yet, neither on the row nor on its image.

    An item in conflict counts as decided: a suggestion must not resolve it.
    """
    entries = QueuePositions([decision.item for decision in decisions]).decisions(current, {}).entries
    final = {position for position, entry in entries.items() if entry.is_final}
    return [decision for position, decision in enumerate(decisions) if position not in final]


def first_items(items: pd.DataFrame, count: int) -> list[tuple[Item, str]]:
    """Return the first ``count`` items, each with its suggested class; raise UserError if the queue has fewer."""
    if count > len(items):
        raise UserError(f"The queue has only {len(items)} items.", "Use a smaller number.")
    first = items.sort_values("rank", kind="stable").head(count)
    return list(zip(queue_items(first), first["suggested"], strict=True))
