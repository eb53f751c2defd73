"""Confident learning (Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels") by
cleanlab: how probable a model that has not seen an image finds the class it was given.
"""

from __future__ import annotations

import pandas as pd

from core.baselines.libraries import checked_scores, require
from core.baselines.pooled import codes, cross_validated, distinct_rows
from core.data import ImageSet
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList


def self_confidence(images: ImageSet, tasks: TaskList, *, folds: int = 5, epochs: int, seed: int) -> pd.DataFrame:
    """Cross-validated probability of the given class under the pooled model.

    Args:
        folds: Parts of the cross-validation, 2 or more.
        epochs, seed: Of the training of the pooled models; ``seed`` also draws the folds.

    Returns:
        image_id, class (as given), self_confidence in [0, 1] (low is suspicious); one row for each distinct
        (image, given class), in the order of the task table.

    Raises:
        UserError: fewer than two classes, a class with fewer images than folds, or scores that rank nothing.
    """
    rank = require("cleanlab.rank")

    rows = distinct_rows(tasks)
    counts = rows["class"].value_counts()
    if len(counts) < 2 or not 2 <= folds <= counts.min():
        raise UserError(
            f"{folds} folds need 2 classes of {max(folds, 2)} images each at least; "
            f"{counts.index[-1]!r} of {len(counts)} classes has {counts.min()}.",
            "Use at least 2 folds and no more than there are images in the smallest class.",
        )
    classes = sorted(counts.index)
    labels = codes(rows["class"], classes)
    probabilities = cross_validated(images, rows, classes, folds=folds, epochs=epochs, seed=seed)
    checked_scores(probabilities, "self-confidence")  # before cleanlab, whose own message is not for the user
    scores = rank.get_label_quality_scores(labels, probabilities, method="self_confidence")
    return rows.assign(self_confidence=checked_scores(scores, "self-confidence"))
