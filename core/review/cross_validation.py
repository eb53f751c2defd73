"""Confident learning (Northcutt et al. 2021): how probable a network that has not seen an image finds its class.

It sees nothing of the meta-learned model, which makes it the slow, independent member of the queue.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from core.baselines.pooled import cross_validated_probabilities as probabilities_of
from core.data import ImageSet
from core.review.image_labels import ImageLabelPairs

FOLDS = 5
EPOCHS = 20


def cross_validated(
    images: ImageSet, claims: ImageLabelPairs, seed: int, on_fold: Callable[[int], None] = lambda folds: None
) -> np.ndarray:
    """``(n,)``: log-probability of every claim's class under networks trained without its image."""
    names = np.array(claims.classes, dtype=object)
    rows = pd.DataFrame({"image_id": images.ids[claims.image], "class": names[claims.label]})
    found = probabilities_of(images, rows, list(claims.classes), folds=FOLDS, epochs=EPOCHS, seed=seed, on_fold=on_fold)
    return np.log(found[np.arange(len(claims)), claims.label] + 1e-300)
