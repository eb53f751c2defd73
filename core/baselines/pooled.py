"""The pooled single-level model, for EK-FAC influence and confident learning: one classifier over all classes."""

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
LEARNING_RATE = 2e-3
_EVALUATION_BATCH = 4096


class PooledNet(nn.Module):
    """A classifier of two strided convolutions, average pooling to 4 x 4, and a linear head.

    All layers are supported by kronfluence; there is no batch normalisation, since with it a single row has no loss.
    Pooling keeps the head small for images of any size.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(32 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, classes)`` of images ``(n, channels, height, width)`` in [0, 1]."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(self.pool(x).flatten(1))


def distinct_rows(tasks: TaskList) -> pd.DataFrame:
    """Return every distinct (image, given class) of rows with positive weight: image_id, class.

    Raises:
        UserError: all rows have weight 0.
    """
    rows = tasks.rows[tasks.rows["weight"] > 0]
    if rows.empty:
        raise UserError("All rows of the tasks have weight 0.", "A pooled model needs rows with positive weight.")
    return rows[["image_id", "class"]].drop_duplicates().reset_index(drop=True)


def pixels(images: ImageSet, image_ids: pd.Series) -> Tensor:
    """Return the images with these ids, ``(n, channels, height, width)`` float32 in [0, 1]."""
    positions = image_ids.map(images.index).to_numpy()
    return torch.from_numpy(images.images[positions]).permute(0, 3, 1, 2).float() / 255


def codes(given: pd.Series, classes: list[str]) -> np.ndarray:
    """Return positions of class names in ``classes``, ``(n,)`` int64.

    Raises:
        UserError: a class is not in ``classes``.
    """
    positions = pd.Index(classes).get_indexer(pd.Index(given)).astype(np.int64)
    if (unknown := given[positions < 0]).size:
        raise UserError(
            f"The held-out tasks have the class {min(unknown)!r}, which no training task has: "
            "a pooled model can only score classes that it was trained on.",
            "Use this baseline with held-out tasks of the training classes.",
        )
    return positions


def train_pooled(
    images: Tensor, labels: np.ndarray, classes: int, *, epochs: int, seed: int, device: torch.device | str
) -> PooledNet:
    """Train by Adam on the mean cross-entropy of batches of 64; on the CPU, equal seeds give equal models.

    ``images`` are ``(n, channels, height, width)`` in [0, 1], ``labels`` are ``(n,)`` int64, 0 ... ``classes - 1``.
    """
    with torch.random.fork_rng(devices=[]):  # layers are initialised from the global generator
        torch.manual_seed(seed)
        net = PooledNet(images.shape[1], classes).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    target = torch.from_numpy(labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = F.cross_entropy(net(images[batch].to(device)), target[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def cross_validated_probabilities(
    images: ImageSet,
    rows: pd.DataFrame,
    classes: list[str],
    *,
    folds: int,
    epochs: int,
    seed: int,
    on_fold: Callable[[int], None] = lambda folds: None,
) -> np.ndarray:
    """Return class probabilities ``(n, classes)`` of every row under models that were not trained on its image.

    ``rows`` has one row for each distinct image_id and class. The folds are stratified by class. All rows of an image
    are in one fold: a model that memorised one of its classes would reject the others.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, x = codes(rows["class"], classes), pixels(images, rows["image_id"])
    probabilities = np.zeros((len(rows), len(classes)))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for training, test in splitter.split(labels, labels, rows["image_id"].to_numpy()):
        net = train_pooled(x[training], labels[training], len(classes), epochs=epochs, seed=seed, device="cpu")
        with torch.no_grad():
            logits = torch.cat([net(batch) for batch in x[test].split(_EVALUATION_BATCH)]).double()
        probabilities[test] = F.softmax(logits, -1).numpy()
        on_fold(1)
    return probabilities
