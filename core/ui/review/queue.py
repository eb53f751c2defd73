"""The review queue as arrays: what is suspicious, most of all first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import streamlit as st

from core.decisions.log import Item
from core.decisions.queue_decisions import QueuePositions, queue_items
from core.ui.shell.context import Context, table
from core.workspace.runs import Run

SCORES = {
    "suspicion": "Suspicion",
    "probability": "Probability of a wrong label",
    "loss": "Loss after adaptation",
    "margin": "Margin of another class",
    "classifier": "Doubt of a classifier on the features",
    "neighbours": "Neighbours of other classes",
    "support_loss": "Loss when left out of the support",
    "self_influence": "Influence on itself",
    "harm": "Harm to the target",
    "cross_validated": "Doubt of cross-validated networks",
}
"""Columns of ``items.parquet`` that can be ordered by, in plain words; larger is more suspicious."""


@dataclass(frozen=True, eq=False)
class Queue:
    """A queue run beside the classes of its problem; n items, most suspicious first.

    Attributes:
        table: ``items.parquet``, its index 0 ... n - 1 is the position.
        given: ``(n,)`` positions in ``names``.
        suggested: ``(n,)`` positions in ``names``; -1 where nothing is suggested.
        names: Class names of the image set.
        level: ``image`` or ``instance``.
    """

    run: Run
    table: pd.DataFrame
    given: np.ndarray
    suggested: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def level(self) -> str:
        return str(self.table["level"].iloc[0]) if len(self) else "image"

    @cached_property
    def items(self) -> list[Item]:
        """What a decision at each position is about."""
        return queue_items(self.table)

    @cached_property
    def believed(self) -> np.ndarray:
        """``(n,)`` of bool: another class is suggested, and it is likelier than the given one where that is known."""
        differs = (self.suggested >= 0) & (self.suggested != self.given)
        if not {"probability", "suggested_probability"} <= set(self.table):
            return differs
        given = 1 - self.table["probability"].to_numpy(float)
        return differs & (np.isnan(given) | (self.table["suggested_probability"].to_numpy(float) > given))

    @cached_property
    def positions(self) -> QueuePositions:
        """The positions that a decision applies to."""
        return QueuePositions(self.items)

    @cached_property
    def scores(self) -> dict[str, str]:
        """The scores that this queue has, with their words."""
        has = [name for name in SCORES if name in self.table and self.table[name].notna().any()]
        return {name: SCORES[name] for name in has}

    @cached_property
    def ranks(self) -> dict[str, np.ndarray]:
        """``(n,)`` of each score: percent of the queue with a smaller value; NaN counts as the smallest."""
        last = max(1, len(self) - 1)
        return {name: (self.table[name].fillna(-np.inf).rank() - 1) * 100 / last for name in self.scores}

    @cached_property
    def image(self) -> dict[str, np.ndarray]:
        """Positions of the items of each image."""
        return {str(name): at for name, at in self.table.groupby("image_id", sort=False).indices.items()}


def open_queue(context: Context, run: Run) -> Queue:
    return _open(str(run.folder), context.project.images.class_names, run)


@st.cache_resource(max_entries=4, show_spinner="Reading the queue")
def _open(folder: str, names: tuple[str, ...], _run: Run) -> Queue:
    items = table(_run, "items.parquet").sort_values("rank", kind="stable").reset_index(drop=True)
    number = {name: at for at, name in enumerate(names)}
    given = items["class"].map(number).fillna(-1).to_numpy(dtype=np.int32)
    suggested = items["suggested"].map(number).fillna(-1).to_numpy(dtype=np.int32)
    return Queue(_run, items, given, suggested, names)
