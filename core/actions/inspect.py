"""Inspect images, a checkpoint or a problem before long work begins: contents, errors, and the cost of each stage."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.actions.compute import Compute, load
from core.actions.images import ImportOptions, listing_of
from core.checkpoints.foreign import inspect_checkpoint
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import Model, ModelSpec, load_model
from core.data.decode import UnreadableError, decode
from core.data.listing import SPLITS, Listing
from core.data.store import resolve_format
from core.editing.measured_cost import WorkEstimate, estimate_costs
from core.maml.settings import TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress, format_count
from core.tasks.generate import TaskFolder, read_folder
from core.workspace.workspace import Project, check_fit

_PREVIEW_IMAGES = 48


@dataclass(frozen=True)
class Inspection:
    """A result of an inspection.

    Attributes:
        found: Sentences on the contents.
        faults: Sentences on what is wrong or does not fit, each with what to do.
        costs: The cost of every stage; empty where the problem is not complete.
    """

    found: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    costs: tuple[WorkEstimate, ...] = ()

    def __add__(self, other: Inspection) -> Inspection:
        return Inspection(self.found + other.found, self.faults + other.faults, self.costs + other.costs)


def inspect_checkpoint_file(checkpoint: Path, backbone: str, tasks: Path | None) -> Inspection:
    """Inspect a checkpoint, and whether it fits the tasks.

    Args:
        backbone: The name of a backbone, or of a factory that is allowed; empty: auto-detect.
        tasks: A folder of tasks whose number of classes and image shape it must fit.

    Raises:
        UserError: the file cannot be read at all.
    """
    folder = read_folder(tasks) if tasks else None
    shape, ways = (folder.images().shape, folder.train.ways) if folder else (None, None)
    checked = inspect_checkpoint(checkpoint, CheckpointHints(backbone or None, shape=shape, ways=ways))
    values = sum(math.prod(tensor.shape) for tensor in checked.tensors)
    facts = [f"{checkpoint.name}: {checked.kind}, {len(checked.tensors)} tensors, {values:,} values."]
    facts += [f"Network: {checked.spec.network_description}."] if checked.spec else []
    return Inspection((*facts, *checked.notes), checked.faults)


def inspect_problem(
    tasks: Path,
    model: Path | None,
    spec: ModelSpec | None,
    training: TrainSettings | None,
    compute: Compute,
    progress: Progress,
) -> Inspection:
    """Inspect whether tasks and a model fit, and what each stage of the work would cost on this machine.

    Args:
        model: A folder with a model; None: inspect a new model of ``spec``.
        training: Settings of a training that is still to be done.

    Raises:
        UserError: the tasks or the model cannot be read.
    """
    folder = read_folder(tasks)
    inspection = Inspection(_task_text(folder))
    images = folder.images()
    if model is not None:
        candidate = load_model(model)
    elif spec is not None:
        fitted = spec.model_copy(update={"ways": folder.train.ways, "shape": images.shape})
        candidate = Model(fitted, fitted.init(0), {})
    else:
        return inspection
    inspection += Inspection((f"Model: {candidate.spec.description}; {candidate.size:,} parameters.",))
    try:
        check_fit(images, folder, candidate)
    except UserError as error:
        return inspection + Inspection(faults=(str(error),))
    loaded = load(Project(images, folder, candidate), compute)
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if busy > cores / 2:
        inspection += Inspection((f"The machine is busy (load {busy:.1f} on {cores} cores); idle, it is faster.",))
    return inspection + Inspection(costs=tuple(estimate_costs(loaded, training, progress)))


def _task_text(folder: TaskFolder) -> tuple[str, ...]:
    train, heldout = folder.train, folder.heldout
    rows = train.rows
    per_class = rows.groupby(["task_id", "label", "role"]).size().unstack("role")
    shots, queries = (span(per_class[role]) for role in ("support", "query"))
    return (
        f"Tasks: {len(train):,} for training, {len(heldout):,} held out; {train.ways}-way, {shots}-shot, "
        f"{queries} queries per class, over {folder.data}.",
        f"They use {rows['image_id'].nunique():,} images of {rows['class'].nunique():,} classes in {len(rows):,} rows.",
    )


@dataclass(frozen=True)
class Preview:
    """Some images as they would be read, ``(n, height, width, channels)`` uint8, and the class of each."""

    pixels: np.ndarray
    classes: tuple[str, ...]


def inspect_images(path: Path, options: ImportOptions) -> tuple[Inspection, Preview | None]:
    """Inspect a sample of images; raise UserError if nothing is there. The preview is None if none can be read."""
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


def span(counts: object) -> str:
    """Return the range of some counts in words: ``5`` or ``3 to 12``."""
    values = np.nan_to_num(np.asarray(counts, dtype=float)).astype(int)
    low, high = values.min(), values.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
