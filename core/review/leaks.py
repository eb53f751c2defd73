"""Where copies of one image lie on both sides of a line that learning is measured across.

- ``support-query``: an image in the support of a task and the same or nearly the same one in its query. The task's loss
  then measures memory. The same image id in both roles counts too.
- ``train-heldout``: an image in a training task and the same or nearly the same one in a held-out task. Held-out
  accuracy then measures memory.
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


def find_leaks(found: Duplicates, ids: np.ndarray, train: pd.DataFrame, heldout: pd.DataFrame) -> pd.DataFrame:
    """Pairs of occurrences on both sides.

    Args:
        found: Duplicates among the images ``ids``.
        train: Rows of the training tasks (:mod:`core.tasks.tasklist`).
        heldout: Rows of the held-out tasks.

    Returns:
        kind (above), part (of support-query: whether the task is a ``training`` or ``held-out`` one; else empty),
        image_id, class (in support, or in training), other, other_class (in query, or held out), distance, exact,
        contradiction (the two given classes differ), tasks (list of ids of the tasks of the first), other_tasks.
        Of support-query, one row a task.
    """
    near = _linked_images(found)
    place = pd.Series(np.arange(len(ids)), index=ids)
    tables = []
    for part, rows in (("training", train), ("held-out", heldout)):
        rows = _occurrences(rows, place, found)
        support, query = (rows[rows["role"] == role] for role in ("support", "query"))
        tables.append(_pairs_across(support, query, near, ["task_id"]).assign(kind="support-query", part=part))
    one, two = (_unique_images(_occurrences(rows, place, found)) for rows in (train, heldout))
    tables.append(_pairs_across(one, two, near, []).assign(kind="train-heldout", part=""))
    leaks = pd.concat(tables, ignore_index=True)
    leaks["contradiction"] = leaks["class"] != leaks["other_class"]
    leaks["exact"] = leaks["exact"].astype(bool)
    return leaks[list(COLUMNS)].sort_values(["kind", "distance"], kind="stable", ignore_index=True)


def _linked_images(found: Duplicates) -> pd.DataFrame:
    """Which different pictures (:attr:`Duplicates.first`) are copies of which, both ways and of themselves."""
    pairs = found.pairs[~found.pairs["exact"]][["one", "other", "distance"]]
    back = pairs.rename(columns={"one": "other", "other": "one"})
    same = np.unique(found.first)
    itself = pd.DataFrame({"one": same, "other": same, "distance": 0.0})
    return pd.concat([itself, pairs, back], ignore_index=True).rename(columns={"one": "first", "other": "other_first"})


def _occurrences(rows: pd.DataFrame, place: pd.Series, found: Duplicates) -> pd.DataFrame:
    at = found.first[place.loc[rows["image_id"]].to_numpy()]
    return rows[["task_id", "role", "image_id", "class"]].assign(first=at)


def _unique_images(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an image and class, with all its tasks."""
    keys = ["image_id", "class", "first"]
    tasks = rows.groupby(keys, sort=False)["task_id"].agg(lambda ids: list(dict.fromkeys(ids)))
    return tasks.rename("tasks").reset_index()


def _pairs_across(one: pd.DataFrame, two: pd.DataFrame, near: pd.DataFrame, same: list[str]) -> pd.DataFrame:
    """Rows of ``one`` beside rows of ``two`` that show a copy, where the columns ``same`` are equal."""
    copied = set(near.loc[near["first"] != near["other_first"], "first"])
    twice = set(one["first"]) & (copied | set(two["first"]))  # most are neither
    left = one[one["first"].isin(twice)].merge(near, on="first")
    right = two.rename(columns={"image_id": "other", "class": "other_class", "first": "other_first"})
    if same:
        joined = left.merge(right.drop(columns="role"), on=["other_first", *same])
        lists = joined["task_id"].map(lambda task: [task])
        joined = joined.assign(tasks=lists, other_tasks=lists)
    else:
        joined = left.merge(right.rename(columns={"tasks": "other_tasks"}), on="other_first")
    return joined.assign(exact=joined["first"] == joined["other_first"])
