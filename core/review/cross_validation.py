"""Confident learning (Northcutt et al. 2021): the probability of every image's class by networks trained without it.

It is independent of the meta-learned model, and slow.
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
    images: ImageSet, pairs: ImageLabelPairs, seed: int, on_fold: Callable[[int], None] = lambda folds: None
) -> np.ndarray:
    """Return ``(n,)`` log-probabilities of every pair's class under networks trained without its image."""
    names = np.array(pairs.classes, dtype=object)
    rows = pd.DataFrame({"image_id": images.ids[pairs.image], "class": names[pairs.label]})
    found = probabilities_of(images, rows, list(pairs.classes), folds=FOLDS, epochs=EPOCHS, seed=seed, on_fold=on_fold)
    return np.log(found[np.arange(len(pairs)), pairs.label] + 1e-300)
