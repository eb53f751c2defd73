"""Draw image grids of training data."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from core.data.images import squeeze_grey
from core.tasks.changes import Changes
from core.ui.grid.component import GridEvent, Tile, image_grid
from core.ui.shell.context import Context
from core.ui.shell.text import shorten


def pixels(context: Context, image_ids: pd.Series | list[str]) -> np.ndarray:
    """Return the images as ``(n, height, width)`` or ``(n, height, width, 3)`` uint8."""
    index = context.project.images.index
    return squeeze_grey(context.project.images.images[[index[i] for i in image_ids]])


def image_tiles(context: Context, table: pd.DataFrame, removal: Changes, score: str, key: str) -> GridEvent:
    """Draw a grid of images, one tile per row of ``table`` (:func:`core.influence.scores.image_table`)."""
    tiles = [
        Tile(
            id=row["image_id"],
            caption=_caption(row["class"], row["predicted_class"]),
            score=float(row[score]),
            score_text=f"{row[score]:+.1e}",
            mark=_mark(row["image_id"] in removal.images, row["class"], row["predicted_class"]),
            tooltip=f"{row['image_id']}: given {row['class']}, mostly predicted as {row['predicted_class']}; "
            f"{row['occurrences']} occurrences, adapted loss {row['loss']:.2f}",
        )
        for row in table.to_dict("records")
    ]
    return image_grid(pixels(context, table["image_id"]), tiles, key=key, label="Training images")


def row_tiles(context: Context, rows: pd.DataFrame, removal: Changes, key: str, label: str) -> GridEvent:
    """Draw a grid of one role of one task; the ids of the tiles are image ids."""
    tiles = []
    for row in rows.to_dict("records"):
        is_removed = (
            row["task_id"] in removal.tasks
            or row["image_id"] in removal.images
            or (row["task_id"], row["role"], row["image_id"]) in removal.instances
        )
        tiles.append(
            Tile(
                id=row["image_id"],
                caption=_caption(row["class"], row["predicted_class"]),
                score=float(row["score"]),
                score_text=f"{row['score']:+.1e}",
                mark=_mark(is_removed, row["class"], row["predicted_class"]),
                tooltip=f"{row['image_id']}: given {row['class']}, predicted as {row['predicted_class']}, "
                f"probability of the given class {row['confidence']:.0%}, loss {row['loss']:.2f}"
                f"{_effect(row['effect'])}",
            )
        )
    return image_grid(pixels(context, rows["image_id"]), tiles, key=key, label=label)


def _effect(effect: float) -> str:
    """Return the effect of a support row as text; query rows have none."""
    return "" if math.isnan(effect) else f"; removing it changes the loss of its task by {effect:+.1e}, an estimate"


def _caption(given: str, predicted: str) -> str:
    """Return two short lines for below an image; the tooltip holds the full names."""
    if given == predicted:
        return f"given {shorten(given, 16)}"
    return f"given {shorten(given, 9)} · pred. {shorten(predicted, 9)}"


def _mark(is_removed: bool, given: str, predicted: str) -> str:
    if is_removed:
        return "removed"
    return "alert" if given != predicted else ""
