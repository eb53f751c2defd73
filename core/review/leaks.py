"""Find leaks: duplicates of one image on both sides of a split that evaluation relies on.

- ``support-query``: an image in the support set of a task and a duplicate in its query set, so that the task's loss
  measures memorisation. The same image id in both roles counts too.
- ``train-heldout``: an image in a training task and a duplicate in a held-out task, so that held-out accuracy measures
  memorisation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.review.duplicates import Duplicates

COLUMNS = (
    "kind",
    "part",
    "image_id",
    "class",
    "other",
    "other_class",
    "distance",
    "exact",
    "contradiction",
    "tasks",
    "other_tasks",
)


def find_leaks(duplicates: Duplicates, ids: np.ndarray, train: pd.DataFrame, heldout: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of duplicates on both sides of a split.

    Args:
        found: Duplicates among the images ``ids``.
        train: Rows of the training tasks (:mod:`core.tasks.tasklist`).
        heldout: Rows of the held-out tasks.

    Returns:
        kind (above), part (``training`` or ``held-out`` task of a support-query leak; else empty), image_id, class (in
        support, or in training), other, other_class (in query, or held out), distance, exact, contradiction (the two
        given classes differ), tasks (ids of the tasks of the first), other_tasks. One row per task for support-query.
    """
    near = _linked_images(duplicates)
    position = pd.Series(np.arange(len(ids)), index=ids)
    tables = []
    for part, rows in (("training", train), ("held-out", heldout)):
        rows = _occurrences(rows, position, duplicates)
        support, query = (rows[rows["role"] == role] for role in ("support", "query"))
        tables.append(_pairs_across(support, query, near, ["task_id"]).assign(kind="support-query", part=part))
    one, two = (_unique_images(_occurrences(rows, position, duplicates)) for rows in (train, heldout))
    tables.append(_pairs_across(one, two, near, []).assign(kind="train-heldout", part=""))
    leaks = pd.concat(tables, ignore_index=True)
    leaks["contradiction"] = leaks["class"] != leaks["other_class"]
    leaks["exact"] = leaks["exact"].astype(bool)
    return leaks[list(COLUMNS)].sort_values(["kind", "distance"], kind="stable", ignore_index=True)


def _linked_images(duplicates: Duplicates) -> pd.DataFrame:
    """Return the pairs of duplicates among distinct images (:attr:`Duplicates.first`), symmetric and reflexive."""
    pairs = duplicates.pairs[~duplicates.pairs["exact"]][["one", "other", "distance"]]
    reversed_pairs = pairs.rename(columns={"one": "other", "other": "one"})
    unique = np.unique(duplicates.first)
    identical = pd.DataFrame({"one": unique, "other": unique, "distance": 0.0})
    return pd.concat([identical, pairs, reversed_pairs], ignore_index=True).rename(
        columns={"one": "first", "other": "other_first"}
    )


def _occurrences(rows: pd.DataFrame, position: pd.Series, duplicates: Duplicates) -> pd.DataFrame:
    first = duplicates.first[position.loc[rows["image_id"]].to_numpy()]
    return rows[["task_id", "role", "image_id", "class"]].assign(first=first)


def _unique_images(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per image and class, with all its tasks."""
    keys = ["image_id", "class", "first"]
    tasks = rows.groupby(keys, sort=False)["task_id"].agg(lambda ids: list(dict.fromkeys(ids)))
    return tasks.rename("tasks").reset_index()


def _pairs_across(one: pd.DataFrame, two: pd.DataFrame, near: pd.DataFrame, same: list[str]) -> pd.DataFrame:
    """Join rows of ``one`` with rows of ``two`` that show a duplicate, where the columns ``same`` are equal."""
    with_copies = set(near.loc[near["first"] != near["other_first"], "first"])
    candidates = set(one["first"]) & (with_copies | set(two["first"]))  # few images are
    left = one[one["first"].isin(candidates)].merge(near, on="first")
    right = two.rename(columns={"image_id": "other", "class": "other_class", "first": "other_first"})
    if same:
        joined = left.merge(right.drop(columns="role"), on=["other_first", *same])
        lists = joined["task_id"].map(lambda task: [task])
        joined = joined.assign(tasks=lists, other_tasks=lists)
    else:
        joined = left.merge(right.rename(columns={"tasks": "other_tasks"}), on="other_first")
    return joined.assign(exact=joined["first"] == joined["other_first"])
