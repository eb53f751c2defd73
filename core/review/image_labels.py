"""What a task list claims about images: every distinct pair of an image and the class it was given, once.

Where labels were spoilt before tasks were drawn, an image makes one claim in all its tasks; where they were spoilt
within tasks, an image makes several, of which one at most is right.
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
    """The n claims of a task list; rows of weight 0 make none.

    Attributes:
        image: ``(n,)`` positions in the image set.
        label: ``(n,)`` positions in ``classes``.
        count: ``(n,)``: rows of the task list that make the claim.
        classes: Class names, sorted.
        of_row: ``(rows,)``: the claim of every row of the task list; -1 for rows of weight 0.
    """

    image: np.ndarray
    label: np.ndarray
    count: np.ndarray
    classes: tuple[str, ...]
    of_row: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    @property
    def contradict(self) -> bool:
        """Whether some image was given several classes, so that labels are a matter of rows and not of images."""
        return len(np.unique(self.image)) < len(self)

    @cached_property
    def main(self) -> np.ndarray:
        """``(n,)`` of bool: the claim that most rows of its image make; of equals the first."""
        order = np.lexsort((np.arange(len(self)), -self.count, self.image))
        first = np.r_[True, self.image[order][1:] != self.image[order][:-1]]
        chosen = np.zeros(len(self), dtype=bool)
        chosen[order[first]] = True
        return chosen

    @cached_property
    def share(self) -> np.ndarray:
        """``(n,)``: share of the rows of its image that make the claim."""
        total = np.bincount(self.image, self.count)
        return self.count / total[self.image]


def image_label_pairs(tasks: TaskList, images: ImageSet) -> ImageLabelPairs:
    """The claims of ``tasks``, in the order in which they first occur."""
    rows = tasks.rows
    alive = (rows["weight"] > 0).to_numpy()
    image = rows["image_id"].map(images.index).to_numpy()
    classes = tuple(sorted(rows.loc[alive, "class"].unique()))
    label = pd.Categorical(rows["class"], categories=classes).codes.astype(np.int64)
    of_row = np.full(len(rows), -1, dtype=np.int64)
    codes, first = pd.factorize(image[alive] * len(classes) + label[alive])
    of_row[alive] = codes
    return ImageLabelPairs(first // len(classes), first % len(classes), np.bincount(codes), classes, of_row)
