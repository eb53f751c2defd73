"""Draw image grids of training data."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from core.data.images import squeeze_grey
from core.recommendation.summary import SUSPICIOUS
from core.tasks.changes import Changes
from core.ui.grid.component import GridEvent, Tile, image_grid
from core.ui.shell.context import Context
from core.ui.shell.text import shorten


def pixels(context: Context, image_ids: pd.Series | list[str]) -> np.ndarray:
    """Return the images as ``(n, height, width)`` or ``(n, height, width, 3)`` uint8."""
    index = context.project.images.index
    return squeeze_grey(context.project.images.images[[index[i] for i in image_ids]])


def image_tiles(context: Context, table: pd.DataFrame, removal: Changes, score: str, key: str) -> GridEvent:
    """Draw a grid of images, one tile per row of ``table``.

    Its columns are those of :func:`core.influence.scores.image_table` and probability, that the label is wrong; NaN if
    it is not known.
    """
    tiles = [
        _tile(
            row,
            score,
            row["image_id"] in removal.images,
            f"{row['image_id']}: given {row['class']}, mostly predicted as {row['predicted_class']}; "
            f"{row['occurrences']} occurrences, adapted loss {row['loss']:.2f}",
        )
        for row in table.to_dict("records")
    ]
    return image_grid(pixels(context, table["image_id"]), tiles, key=key, label="Training images")


def row_tiles(context: Context, rows: pd.DataFrame, removal: Changes, key: str, label: str) -> GridEvent:
    """Draw a grid of one role of one task, with image ids for tiles; for ``probability`` see :func:`image_tiles`."""
    tiles = []
    for row in rows.to_dict("records"):
        is_removed = (
            row["task_id"] in removal.tasks
            or row["image_id"] in removal.images
            or (row["task_id"], row["role"], row["image_id"]) in removal.instances
        )
        tooltip = (
            f"{row['image_id']}: given {row['class']}, predicted as {row['predicted_class']}, "
            f"probability of the given class {row['confidence']:.0%}, loss {row['loss']:.2f}"
        )
        if not math.isnan(row["effect"]):  # query rows have none
            tooltip += f"; removing it changes the loss of its task by {row['effect']:+.1e}, an estimate"
        tiles.append(_tile(row, "score", is_removed, tooltip))
    return image_grid(pixels(context, rows["image_id"]), tiles, key=key, label=label)


def _tile(row: dict[Hashable, Any], score: str, is_removed: bool, tooltip: str) -> Tile:
    given, predicted, probability = row["class"], row["predicted_class"], row["probability"]
    caption = f"given {shorten(given, 16)}"
    if given != predicted:  # the tooltip holds the full names
        caption = f"given {shorten(given, 9)} · pred. {shorten(predicted, 9)}"
    is_known = not math.isnan(probability)
    is_suspicious = probability >= SUSPICIOUS if is_known else given != predicted
    if is_known:
        tooltip += f"; wrong with probability {probability:.0%}, an estimate"
    mark = "removed" if is_removed else "alert" if is_suspicious else ""
    return Tile(row["image_id"], caption, float(row[score]), f"{row[score]:+.1e}", mark, tooltip)
