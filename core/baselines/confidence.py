"""Confident learning (Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels") by
cleanlab: how probable a model that has not seen an image finds the class it was given.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from core.baselines.libraries import checked, require
from core.baselines.pooled import codes, distinct_rows, pixels, train_pooled
from core.data import ImageSet
from core.errors import UserError
from core.tasks.tasklist import TaskList


def self_confidence(images: ImageSet, tasks: TaskList, *, folds: int = 5, epochs: int, seed: int) -> pd.DataFrame:
    """Cross-validated probability of the given class under the pooled model.

    The folds are stratified by class. An image that was given several classes is in one fold with all its rows:
    a model that learnt one of them by heart would call the others wrong.

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
    from sklearn.model_selection import StratifiedGroupKFold

    rows = distinct_rows(tasks)
    counts = rows["class"].value_counts()
    if len(counts) < 2 or not 2 <= folds <= counts.min():
        raise UserError(
            f"{folds} folds need 2 classes of {max(folds, 2)} images each at least; "
            f"{counts.index[-1]!r} of {len(counts)} classes has {counts.min()}.",
            "Use at least 2 folds and no more than there are images in the smallest class.",
        )
    classes = sorted(counts.index)
    labels, x = codes(rows["class"], classes), pixels(images, rows["image_id"])
    probabilities = np.zeros((len(rows), len(classes)))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for learn, judge in splitter.split(labels, labels, rows["image_id"].to_numpy()):
        net = train_pooled(x[learn], labels[learn], len(classes), epochs=epochs, seed=seed, device="cpu")
        with torch.no_grad():
            logits = net(x[judge]).double()
        probabilities[judge] = F.softmax(logits, -1).numpy()
    checked(probabilities, "self-confidence")  # before cleanlab, whose own message is not for the user
    scores = rank.get_label_quality_scores(labels, probabilities, method="self_confidence")
    return rows.assign(self_confidence=checked(scores, "self-confidence"))
