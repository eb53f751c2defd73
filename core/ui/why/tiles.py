"""Draw the grids of the Why page: a held-out task, and training tasks and images with their scores for it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from core.tasks.changes import Changes
from core.ui.grid.atlas import arrange
from core.ui.grid.component import GridEvent, Tile, image_grid
from core.ui.grid.pictures import pixels
from core.ui.shell.context import Context
from core.ui.shell.text import shorten

_TASK_IMAGES = 9  # images that represent a task
_SMALL_PX = 48  # size of the images of the held-out task, so that the whole task is visible


def heldout_tiles(context: Context, rows: pd.DataFrame, focus: str, key: str, label: str) -> None:
    """Draw the images of one role of a held-out task; query rows have predicted_class, loss and confidence."""
    tiles = []
    for row in rows.to_dict("records"):
        image, name, predicted = row["image_id"], row["class"], row.get("predicted_class")
        caption, mark, tooltip = shorten(name, 16), "", f"{image}: is {name}"
        if predicted is not None:
            tooltip += f", predicted as {predicted}; probability of its class {row['confidence']:.0%}"
            tooltip += f", loss {row['loss']:.2f}"
            if predicted != name:
                caption, mark = f"{shorten(name, 8)} · pred. {shorten(predicted, 8)}", "alert"
        if image == focus:
            caption, tooltip = f"▶ {caption}", f"{tooltip} (selected)"
        tiles.append(Tile(image, caption, mark=mark, tooltip=tooltip))
    image_grid(pixels(context, rows["image_id"]), tiles, key=key, tile_px=_SMALL_PX, label=label, selectable=False)


def scored_images(context: Context, scores: pd.DataFrame, changes: Changes, key: str, label: str) -> GridEvent:
    """Draw training images with their scores for the target, which are estimates."""
    relabelled = dict(changes.relabelled_images)
    tiles = []
    for row in scores.to_dict("records"):
        new = relabelled.get(row["image_id"])
        given = f"given {shorten(row['class'], 16)}"
        tiles.append(
            Tile(
                id=row["image_id"],
                caption=given if new is None else f"{shorten(row['class'], 8)} → {shorten(new, 8)}",
                score=float(row["score"]),
                score_text=f"{row['score']:+.1e}",
                mark="removed" if row["image_id"] in changes.images else "",
                tooltip=f"{row['image_id']}: {row['occurrences']} occurrences; removing it would change the loss by "
                f"{row['score']:+.2e} ({row['score_support']:+.1e} as support, {row['score_query']:+.1e} as query), "
                "an estimate",
            )
        )
    return image_grid(pixels(context, scores["image_id"]), tiles, key=key, label=label)


def scored_tasks(context: Context, scores: pd.DataFrame, changes: Changes, key: str, label: str) -> GridEvent:
    """Draw training tasks with their scores for the target; one support image of every class represents a task."""
    rows = context.project.tasks.train.rows
    rows = rows[rows["task_id"].isin(scores["task_id"]) & (rows["role"] == "support")]
    first = rows.drop_duplicates(["task_id", "label"])
    tiles, pictures = [], []
    for row in scores.to_dict("records"):
        part = first[first["task_id"] == row["task_id"]].sort_values("label", kind="stable")
        pictures.append(_mosaic(pixels(context, part["image_id"].head(_TASK_IMAGES))))
        tiles.append(
            Tile(
                id=row["task_id"],
                caption=shorten(row["task_id"], 16),
                score=float(row["score"]),
                score_text=f"{row['score']:+.1e}",
                mark="removed" if row["task_id"] in changes.tasks else "",
                tooltip=f"{row['task_id']}: {', '.join(part['class'])}; removing it would change the loss by "
                f"{row['score']:+.2e}, an estimate",
            )
        )
    return image_grid(np.stack(pictures), tiles, key=key, label=label)


def _mosaic(pictures: np.ndarray) -> np.ndarray:
    """Return images ``(n, height, width, ...)`` arranged in a square; the rest of it is empty."""
    side = math.ceil(len(pictures) ** 0.5)
    cells = np.zeros((side**2, *pictures.shape[1:]), dtype=pictures.dtype)
    cells[: len(pictures)] = pictures
    return arrange(cells, side)
