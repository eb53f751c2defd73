"""The distinct pairs of an image and a class that a task list contains.

If labels were corrupted before tasks were sampled, an image has one class in all its tasks; if they were corrupted
within tasks, an image has several, of which at most one is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.tasks.tasklist import TaskList


@dataclass(frozen=True, eq=False)
class ImageLabelPairs:
    """The n distinct pairs of an image and a class in a task list, without rows of weight 0.

    Attributes:
        image: ``(n,)`` positions in the image set.
        label: ``(n,)`` positions in ``classes``.
        count: ``(n,)``: rows of the task list with the pair.
        classes: Class names, sorted.
        of_row: ``(rows,)``: the pair of every row of the task list; -1 for rows of weight 0.
    """

    image: np.ndarray
    label: np.ndarray
    count: np.ndarray
    classes: tuple[str, ...]
    of_row: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    @property
    def has_conflicting_labels(self) -> bool:
        """Whether some image has several classes, so that a label error is one of a row and not of an image."""
        return len(np.unique(self.image)) < len(self)

    @cached_property
    def is_main(self) -> np.ndarray:
        """``(n,)`` of bool: the most frequent class of its image; of equally frequent ones the first."""
        order = np.lexsort((np.arange(len(self)), -self.count, self.image))
        first = np.r_[True, self.image[order][1:] != self.image[order][:-1]]
        is_main = np.zeros(len(self), dtype=bool)
        is_main[order[first]] = True
        return is_main

    @cached_property
    def share(self) -> np.ndarray:
        """``(n,)``: share of the rows of its image that have the pair's class."""
        total = np.bincount(self.image, self.count)
        return self.count / total[self.image]


def image_label_pairs(tasks: TaskList, images: ImageSet) -> ImageLabelPairs:
    """Return the pairs of ``tasks`` in the order in which they first occur."""
    rows = tasks.rows
    in_use = (rows["weight"] > 0).to_numpy()
    image = rows["image_id"].map(images.index).to_numpy()
    classes = tuple(sorted(rows.loc[in_use, "class"].unique()))
    label = pd.Index(classes).get_indexer(pd.Index(rows["class"])).astype(np.int64)
    of_row = np.full(len(rows), -1, dtype=np.int64)
    codes, first = pd.factorize(image[in_use] * len(classes) + label[in_use])
    of_row[in_use] = codes
    return ImageLabelPairs(first // len(classes), first % len(classes), np.bincount(codes), classes, of_row)
