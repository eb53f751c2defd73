"""Confident learning (Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels") by
cleanlab: the probability of an image's given class under a model that was not trained on the image.
"""

from __future__ import annotations

import pandas as pd

from core.baselines.libraries import checked_scores, require
from core.baselines.pooled import codes, cross_validated_probabilities, distinct_rows
from core.data import ImageSet
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList


def self_confidence(images: ImageSet, tasks: TaskList, *, folds: int = 5, epochs: int, seed: int) -> pd.DataFrame:
    """Return the cross-validated probability of the given class under the pooled model.

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
            f"{folds} folds need at least 2 classes of at least {max(folds, 2)} images each; "
            f"the smallest of {len(counts)}, {counts.index[-1]!r}, has {counts.min()}.",
            "Use at least 2 folds, and at most as many as the smallest class has images.",
        )
    classes = sorted(counts.index)
    labels = codes(rows["class"], classes)
    probabilities = cross_validated_probabilities(images, rows, classes, folds=folds, epochs=epochs, seed=seed)
    checked_scores(probabilities, "self-confidence")  # before cleanlab, whose message would not help the user
    scores = rank.get_label_quality_scores(labels, probabilities, method="self_confidence")
    return rows.assign(self_confidence=checked_scores(scores, "self-confidence"))
