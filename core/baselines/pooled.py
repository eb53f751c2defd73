"""The pooled single-level model: one ordinary classifier over all classes, blind to tasks.

It is what the methods for single-level models (EK-FAC influence, confident learning) need to work on, and so the
baseline that shows what the bilevel view adds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.data import ImageSet
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList

BATCH = 64
RATE = 2e-3


class PooledNet(nn.Module):
    """Two strided convolutions, a mean over a 4 x 4 grid of places, and a linear head.

    Only layers that kronfluence can take apart; no batch normalisation, which has no loss of a single row. The
    grid keeps the head small for images of any size.

    Args:
        channels: Of the images.
        classes: Width of the head.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(32 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, height, width)`` in [0, 1]."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(self.pool(x).flatten(1))


def distinct_rows(tasks: TaskList) -> pd.DataFrame:
    """Every distinct (image, given class) of support and query rows once: image_id, class; rows of weight 0 left out.

    Raises:
        UserError: all rows have weight 0.
    """
    rows = tasks.rows[tasks.rows["weight"] > 0]
    if rows.empty:
        raise UserError("All rows of the tasks have weight 0.", "A pooled model needs rows to train on.")
    return rows[["image_id", "class"]].drop_duplicates().reset_index(drop=True)


def pixels(images: ImageSet, image_ids: pd.Series) -> Tensor:
    """The images with these ids, ``(n, channels, height, width)`` float32 in [0, 1]."""
    positions = image_ids.map(images.index).to_numpy()
    return torch.from_numpy(images.images[positions]).permute(0, 3, 1, 2).float() / 255


def codes(given: pd.Series, classes: list[str]) -> np.ndarray:
    """Positions of class names in ``classes``, ``(n,)`` int64.

    Raises:
        UserError: a class is not among them.
    """
    unknown = sorted(set(given) - set(classes))
    if unknown:
        raise UserError(
            f"The held-out tasks have the class {unknown[0]!r}, which no training task has: "
            "a pooled model cannot rate other classes than its own.",
            "Use this baseline with held-out tasks of the training classes.",
        )
    position = {name: code for code, name in enumerate(classes)}
    return np.array([position[name] for name in given], dtype=np.int64)


def train_pooled(
    images: Tensor, labels: np.ndarray, classes: int, *, epochs: int, seed: int, device: torch.device | str
) -> PooledNet:
    """Train by Adam on the mean cross-entropy of batches of 64; the same on the CPU whenever the seed is the same.

    Args:
        images: ``(n, channels, height, width)`` in [0, 1].
        labels: ``(n,)`` int64, 0 ... ``classes - 1``.
    """
    with torch.random.fork_rng(devices=[]):  # layers are initialised from the global generator
        torch.manual_seed(seed)
        net = PooledNet(images.shape[1], classes).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    target = torch.from_numpy(labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = F.cross_entropy(net(images[batch].to(device)), target[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def cross_validated(
    images: ImageSet,
    rows: pd.DataFrame,
    classes: list[str],
    *,
    folds: int,
    epochs: int,
    seed: int,
    on_fold: Callable[[int], None] = lambda folds: None,
) -> np.ndarray:
    """Probabilities ``(n, classes)`` of the classes for every row under models that were not trained on its image.

    The folds are stratified by class. An image that was given several classes is in one fold with all its rows:
    a model that learnt one of them by heart would call the others wrong.

    Args:
        rows: image_id, class; one row for each distinct pair.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, x = codes(rows["class"], classes), pixels(images, rows["image_id"])
    probabilities = np.zeros((len(rows), len(classes)))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for learn, judge in splitter.split(labels, labels, rows["image_id"].to_numpy()):
        net = train_pooled(x[learn], labels[learn], len(classes), epochs=epochs, seed=seed, device="cpu")
        with torch.no_grad():
            logits = torch.cat([net(some) for some in x[judge].split(4096)]).double()
        probabilities[judge] = F.softmax(logits, -1).numpy()
        on_fold(1)
    return probabilities
