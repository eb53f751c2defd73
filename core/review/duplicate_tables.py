"""Tables of the duplicates among the images of tasks, and their summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from core.decisions.records import Item
from core.decisions.table import given_classes
from core.review.duplicates import Duplicates

HISTOGRAM_BINS = 60


def pair_table(duplicates: Duplicates, ids: np.ndarray, train: pd.DataFrame, heldout: pd.DataFrame) -> pd.DataFrame:
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

    first_id, second_id = (ids[duplicates.pairs[name].to_numpy()] for name in ("one", "other"))
    table = pd.DataFrame({"image_id": first_id, "other": second_id}, dtype=object)
    table = table.assign(**{name: duplicates.pairs[name].to_numpy() for name in ("distance", "ratio", "exact")})
    for prefix, ids in (("", first_id), ("other_", second_id)):
        info = [class_and_part(image) for image in ids]
        table[f"{prefix}class"] = [name for name, _ in info]
        table[f"{prefix}training"] = [is_training for _, is_training in info]
    table["contradiction"] = table["class"] != table["other_class"]
    _, table["group"] = np.unique(duplicates.group[duplicates.pairs["one"].to_numpy()], return_inverse=True)
    return table


def duplicate_summary(duplicates: Duplicates, pairs: pd.DataFrame, leaks: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers of images, pairs and leaks, the threshold, and a histogram of the ratios, for JSON."""
    counts, edges = np.histogram(duplicates.ratios, HISTOGRAM_BINS, (0.0, 1.0))
    return {
        "images": len(duplicates.first),
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
        "threshold": duplicates.threshold,
        "power": None if np.isnan(duplicates.power) else duplicates.power,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
