"""Explain failures: which held-out tasks and images fail, and which training items harm them most."""

from __future__ import annotations

import pandas as pd

from core.influence.targets import Target
from core.runtime.errors import UserError
from core.tasks.changes import Changes

MAX_FAILING_IMAGES = 500
"""Failing images that are listed, the highest loss first."""


def failing_tasks(heldout: pd.DataFrame) -> list[Target]:
    """Return the tasks of ``heldout.parquet`` of an evaluation, the lowest accuracy first, then the highest loss."""
    ranked = heldout.sort_values(["accuracy", "loss"], ascending=[True, False], kind="stable")
    return [Target((task,)) for task in ranked["task_id"]]


def failing_images(rows: pd.DataFrame) -> list[Target]:
    """Return the misclassified query images of ``rows.parquet`` of an evaluation, the highest loss first."""
    errors = rows[rows["predicted"] != rows["label"]].sort_values("loss", ascending=False, kind="stable")
    errors = errors.head(MAX_FAILING_IMAGES)
    return [Target((task,), image) for task, image in zip(errors["task_id"], errors["image_id"], strict=True)]


def most_harmful(table: pd.DataFrame, by: str, count: int) -> Changes:
    """Return the removal of the ``count`` most harmful items, fewer where fewer are harmful.

    Args:
        table: Scores of ``tasks`` or ``images`` (``by``), the most harmful first
            (:class:`core.editing.whatif.TargetScores`).

    Raises:
        UserError: no item has a harmful score.
    """
    harmful = table[table["score"] < 0].head(count)
    if harmful.empty:
        raise UserError(f"No {by} have a harmful score for this target.", "There is nothing to remove.")
    return Changes.named(**{by: list(harmful[f"{by[:-1]}_id"])})
