"""Why did this fail? Which held-out tasks and images fail, and what the worst of the training data would be."""

from __future__ import annotations

import pandas as pd

from core.influence.targets import Target
from core.runtime.errors import UserError
from core.tasks.changes import Changes

MOST_FAILING = 500
"""Failing images that are offered, worst first."""


def failing_tasks(heldout: pd.DataFrame) -> list[Target]:
    """All held-out tasks, the lowest accuracy first, then the highest loss.

    Args:
        heldout: ``heldout.parquet`` of an evaluation.
    """
    worst = heldout.sort_values(["accuracy", "loss"], ascending=[True, False], kind="stable")
    return [Target((task,)) for task in worst["task_id"]]


def failing_images(rows: pd.DataFrame) -> list[Target]:
    """Held-out query images that are seen as another class, the highest loss first.

    Args:
        rows: ``rows.parquet`` of an evaluation.
    """
    wrong = rows[rows["predicted"] != rows["label"]].sort_values("loss", ascending=False, kind="stable")
    return [Target((task,), image) for task, image in zip(wrong["task_id"], wrong["image_id"], strict=True)][
        :MOST_FAILING
    ]


def worst(table: pd.DataFrame, by: str, count: int) -> Changes:
    """The removal of the ``count`` most harmful of a table of scores; of harmful ones only.

    Args:
        table: Most harmful first (:class:`core.actions.whatif.TargetScores`).
        by: ``tasks`` or ``images``.

    Raises:
        UserError: nothing is harmful.
    """
    chosen = table[table["score"] < 0].head(count)
    if chosen.empty:
        raise UserError(f"None of the {by} has a harmful score for this.", "There is nothing to remove.")
    ids = frozenset(chosen[f"{by[:-1]}_id"])
    return Changes(tasks=ids) if by == "tasks" else Changes(images=ids)
