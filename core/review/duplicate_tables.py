"""Tables of the duplicates among the images of tasks, and their summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from core.decisions.records import Item
from core.decisions.table import given_classes
from core.review.duplicates import Duplicates

HISTOGRAM_BINS = 60


def pair_table(found: Duplicates, ids: np.ndarray, train: pd.DataFrame, heldout: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of duplicates, nearest first.

    Args:
        found: Duplicates among the images ``ids``.
        train: Rows of the training tasks.
        heldout: Rows of the held-out tasks.

    Returns:
        image_id, other, distance, ratio (:mod:`core.review.duplicates`), exact, class, other_class (as given),
        training, other_training (whether the image is in a training task, so that it can be decided on),
        contradiction (the two classes differ), group (number of the connected component of pairs).
    """
    of_training, of_heldout = given_classes(train), given_classes(heldout)

    def class_and_part(image: str) -> tuple[str, bool]:
        item = Item("image", image_id=image)
        return (of_training[item], True) if item in of_training else (of_heldout[item], False)

    one, two = (ids[found.pairs[name].to_numpy()] for name in ("one", "other"))
    first, second = [class_and_part(image) for image in one], [class_and_part(image) for image in two]
    table = pd.DataFrame({"image_id": one, "other": two}, dtype=object)
    table = table.assign(**{name: found.pairs[name].to_numpy() for name in ("distance", "ratio", "exact")})
    table["class"], table["training"] = [name for name, _ in first], [is_training for _, is_training in first]
    table["other_class"], table["other_training"] = (
        [name for name, _ in second],
        [is_training for _, is_training in second],
    )
    table["contradiction"] = table["class"] != table["other_class"]
    _, table["group"] = np.unique(found.group[found.pairs["one"].to_numpy()], return_inverse=True)
    return table


def duplicate_summary(found: Duplicates, pairs: pd.DataFrame, leaks: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers of images, pairs and leaks, the threshold, and a histogram of the ratios, for JSON."""
    counts, edges = np.histogram(found.ratios, HISTOGRAM_BINS, (0.0, 1.0))
    return {
        "images": len(found.first),
        "pairs": len(pairs),
        "exact": int(pairs["exact"].sum()),
        "near": int((~pairs["exact"]).sum()),
        "contradictions": int(pairs["contradiction"].sum()),
        "groups": int(pairs["group"].nunique()),
        "leaks": {
            "support-query": int(((leaks["kind"] == "support-query") & (leaks["part"] == "training")).sum()),
            "support-query, held out": int(((leaks["kind"] == "support-query") & (leaks["part"] == "held-out")).sum()),
            "train-heldout": int((leaks["kind"] == "train-heldout").sum()),
        },
        "leaks_with_different_classes": int(leaks["contradiction"].sum()),
        "threshold": found.threshold,
        "power": None if np.isnan(found.power) else found.power,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
