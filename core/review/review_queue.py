"""The review queue in memory: its table, and the arrays and look-ups that the Review page needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from core.decisions.log import Item
from core.decisions.queue_decisions import QueuePositions, queue_items

SCORES = {
    "suspicion": "Suspicion",
    "probability": "Probability of a label error",
    "loss": "Loss after adaptation",
    "margin": "Margin of another class",
    "classifier": "Classifier on the features",
    "neighbours": "Nearest neighbours",
    "support_loss": "Loss when left out of the support",
    "self_influence": "Self-influence",
    "harm": "Harm to the held-out loss",
    "cross_validated": "Cross-validated networks",
}
"""Columns of ``items.parquet`` that can be ordered by, with their names; larger is more suspicious."""


@dataclass(frozen=True, eq=False)
class Queue:
    """A queue with the class names of its image set; n items, most suspicious first.

    Attributes:
        folder: Folder of the queue's run; its name is the run's id.
        table: ``items.parquet`` in the order of ``rank``; its index 0 ... n - 1 is the position.
        given, suggested: ``(n,)`` positions in ``names``; -1 where no class is suggested.
    """

    folder: Path
    table: pd.DataFrame
    given: np.ndarray
    suggested: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of_table(cls, folder: Path, items: pd.DataFrame, names: Sequence[str]) -> Queue:
        """Return the queue of an ``items.parquet``."""
        items = items.sort_values("rank", kind="stable").reset_index(drop=True)
        number = {name: position for position, name in enumerate(names)}
        given, suggested = (
            items[column].map(number).fillna(-1).to_numpy(dtype=np.int32) for column in ("class", "suggested")
        )
        return cls(folder, items, given, suggested, tuple(names))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def run_id(self) -> str:
        """Id of the queue's run."""
        return self.folder.name

    @property
    def level(self) -> str:
        """What an item is: ``image``, or ``instance`` (a row of a task)."""
        return str(self.table["level"].iloc[0]) if len(self) else "image"

    @cached_property
    def items(self) -> list[Item]:
        """What a decision at each position is about."""
        return queue_items(self.table)

    @cached_property
    def positions(self) -> QueuePositions:
        """The positions that a decision applies to."""
        return QueuePositions(self.items)

    @cached_property
    def has_likelier_class(self) -> np.ndarray:
        """``(n,)`` of bool: another class is suggested, and it is likelier than the given one where that is known."""
        differs = (self.suggested >= 0) & (self.suggested != self.given)
        if not {"probability", "suggested_probability"} <= set(self.table):
            return differs
        given = 1 - self.table["probability"].to_numpy(float)
        return differs & (np.isnan(given) | (self.table["suggested_probability"].to_numpy(float) > given))

    @cached_property
    def scores(self) -> dict[str, str]:
        """The scores that this queue has, with their names."""
        return {name: words for name, words in SCORES.items() if name in self.table and self.table[name].notna().any()}

    @cached_property
    def percentiles(self) -> dict[str, np.ndarray]:
        """``(n,)`` of each score: percent of the queue with a smaller value; NaN counts as the smallest."""
        last = max(1, len(self) - 1)
        return {name: (self.table[name].fillna(-np.inf).rank().to_numpy() - 1) * 100 / last for name in self.scores}

    @cached_property
    def positions_of_image(self) -> dict[str, np.ndarray]:
        """Positions of the items of each image."""
        groups = self.table.groupby("image_id", sort=False).indices
        return {str(image_id): np.asarray(positions) for image_id, positions in groups.items()}
