"""Tables of the duplicates among the images of tasks, of the leaks that they cause, and their summary.

A leak is a pair of duplicates on both sides of a split that evaluation relies on:

- ``support-query``: an image in the support set of a task and a duplicate in its query set, so that the task's loss
  measures memorisation. The same image id in both roles counts too.
- ``train-heldout``: an image in a training task and a duplicate in a held-out task, so that held-out accuracy measures
  memorisation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from core.decisions.records import Item
from core.decisions.table import given_classes
from core.review.duplicates import Duplicates

HISTOGRAM_BINS = 60
LEAK_COLUMNS = ["kind", "part", "image_id", "class", "other", "other_class"]
LEAK_COLUMNS += ["distance", "exact", "contradiction", "tasks", "other_tasks"]


def pair_table(duplicates: Duplicates, ids: np.ndarray, train: pd.DataFrame, heldout: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of duplicates, nearest first.

    Args:
        duplicates: Duplicates among the images ``ids``.
        train, heldout: Rows of the training and of the held-out tasks (:mod:`core.tasks.tasklist`).

    Returns:
        image_id, other, distance, ratio (:mod:`core.review.duplicates`), exact, class, other_class (as given),
        training, other_training (whether the image is in a training task, so that it can be decided on),
        contradiction (the two classes differ), group (number of the connected component of pairs).
    """
    of_training = given_classes(train)
    given = given_classes(heldout) | of_training
    first_id, second_id = (ids[duplicates.pairs[name].to_numpy()] for name in ("one", "other"))
    table = pd.DataFrame({"image_id": first_id, "other": second_id}, dtype=object)
    table = table.assign(**{name: duplicates.pairs[name].to_numpy() for name in ("distance", "ratio", "exact")})
    for prefix, image_ids in (("", first_id), ("other_", second_id)):
        items = [Item("image", image_id=image) for image in image_ids]
        table[f"{prefix}class"] = [given[item] for item in items]
        table[f"{prefix}training"] = [item in of_training for item in items]
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


def find_leaks(duplicates: Duplicates, ids: np.ndarray, train: pd.DataFrame, heldout: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of duplicates on both sides of a split, with the arguments of :func:`pair_table`.

    Returns:
        kind (above), part (``training`` or ``held-out`` task of a support-query leak; else empty), image_id, class (in
        support, or in training), other, other_class (in query, or held out), distance, exact, contradiction (the two
        given classes differ), tasks (ids of the tasks of the first), other_tasks. One row per task for support-query.
    """
    near = _linked_images(duplicates)
    position = pd.Series(np.arange(len(ids)), index=ids)
    tables, unique = [], []
    for part, rows in (("training", train), ("held-out", heldout)):
        first = duplicates.first[position.loc[rows["image_id"]].to_numpy()]
        keyed = rows[["task_id", "role", "image_id", "class"]].assign(first=first)
        tasks_of = keyed.groupby(["image_id", "class", "first"], sort=False)["task_id"]
        unique.append(tasks_of.agg(lambda names: list(dict.fromkeys(names))).rename("tasks").reset_index())
        keyed = keyed.assign(tasks=keyed["task_id"].map(lambda task: [task]))
        support, query = (keyed[keyed["role"] == role].drop(columns="role") for role in ("support", "query"))
        tables.append(_pairs_across(support, query, near, ["task_id"]).assign(kind="support-query", part=part))
    tables.append(_pairs_across(unique[0], unique[1], near, []).assign(kind="train-heldout", part=""))
    leaks = pd.concat(tables, ignore_index=True)
    leaks["contradiction"] = leaks["class"] != leaks["other_class"]
    leaks["exact"] = leaks["exact"].astype(bool)
    return leaks[LEAK_COLUMNS].sort_values(["kind", "distance"], kind="stable", ignore_index=True)


def _linked_images(duplicates: Duplicates) -> pd.DataFrame:
    """Return the pairs of duplicates among distinct images (:attr:`Duplicates.first`), symmetric and reflexive."""
    near, same = duplicates.pairs[~duplicates.pairs["exact"]], np.unique(duplicates.first)
    distance = np.r_[np.zeros(len(same)), near["distance"], near["distance"]]
    one, other = np.r_[same, near["one"], near["other"]], np.r_[same, near["other"], near["one"]]
    return pd.DataFrame({"first": one, "other_first": other, "distance": distance})


def _pairs_across(one: pd.DataFrame, two: pd.DataFrame, near: pd.DataFrame, same: list[str]) -> pd.DataFrame:
    """Join rows of ``one`` with rows of ``two`` that show a duplicate, where the columns ``same`` are equal."""
    with_copies = set(near.loc[near["first"] != near["other_first"], "first"])
    candidates = set(one["first"]) & (with_copies | set(two["first"]))  # few images are
    left = one[one["first"].isin(candidates)].merge(near, on="first")
    renamed = {"image_id": "other", "class": "other_class", "first": "other_first", "tasks": "other_tasks"}
    joined = left.merge(two.rename(columns=renamed), on=["other_first", *same])
    return joined.assign(exact=joined["first"] == joined["other_first"])
