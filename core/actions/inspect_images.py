"""Inspect images before they are imported: names, classes, splits, and a preview."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.actions.images import ImportOptions, listing_of
from core.actions.inspect import Inspection, span
from core.data.decode import UnreadableError, decode
from core.data.listing import SPLITS, Listing
from core.data.store import resolve_format
from core.runtime.errors import UserError
from core.runtime.progress import format_count

_PREVIEW_IMAGES = 48


@dataclass(frozen=True)
class Preview:
    """Some images as they would be read.

    Attributes:
        pixels: ``(n, height, width, channels)`` uint8.
        classes: The class of each.
    """

    pixels: np.ndarray
    classes: tuple[str, ...]


def inspect_images(path: Path, options: ImportOptions) -> tuple[Inspection, Preview | None]:
    """Inspect images without reading them all; the preview is None where none can be read.

    Raises:
        UserError: nothing at ``path`` can be read.
    """
    listing = listing_of(path, options)
    sizes = listing.table.groupby("class").size().sort_values(kind="stable")
    facts = [
        f"{listing.name}: {len(listing):,} images of {len(sizes):,} classes, {span(sizes)} per class.",
        *_split_text(listing),
        *listing.notes,
    ]
    faults = []
    if small := int((sizes < 2).sum()):
        faults.append(
            f"{small:,} classes have a single image, the first {sizes.index[0]!r}: a task needs at least one support "
            "and one query image per class. Remove these classes or add images."
        )
    try:
        spec = resolve_format(listing, options.target_format)
    except UserError as error:
        return Inspection(tuple(facts), (*faults, str(error))), None
    pixels, classes, unreadable = [], [], []
    sample = np.unique(np.linspace(0, len(listing) - 1, min(_PREVIEW_IMAGES, len(listing))).astype(int))
    for position in map(int, sample):
        row = listing.table.iloc[position]
        try:
            image = decode(listing.read(position), *spec, int(row["turn"]))
        except UnreadableError as error:
            unreadable.append(f"{row['id']}: {error}")
            continue
        pixels.append(image)
        classes.append(str(row["class"]))
    facts.append(
        f"Stored as {spec.height} x {spec.width}, {'greyscale' if spec.channels == 1 else 'colour'}"
        f"{', inverted' if spec.invert else ''}: {len(listing) * math.prod(spec[:3]) / 1e9:.2g} GB on disk."
    )
    if unreadable:
        faults.append(
            f"{len(unreadable)} of {len(sample)} sampled images cannot be read: {unreadable[0]}. "
            "Repair or remove them, or import with --skip-unreadable."
        )
    preview = Preview(np.stack(pixels), tuple(classes)) if pixels else None
    return Inspection(tuple(facts), tuple(faults)), preview


def _split_text(listing: Listing) -> list[str]:
    table = listing.table[listing.table["split"] != ""]
    if table.empty:
        return ["No official split: hold out images of every class, or whole classes."]
    parts = [
        f"{part} {format_count(rows['class'].nunique(), 'class', 'classes')}, {format_count(len(rows), 'image')}"
        for part, rows in table.groupby("split")
    ]
    order = sorted(parts, key=lambda text: SPLITS.index(text.split(" ")[0]))
    return [f"Official split: {'; '.join(order)}."]
