"""Inspect images, a checkpoint or a problem before long work begins: contents, errors, and the cost of each stage."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from core.actions.compute import Compute, load
from core.actions.images import ImportOptions, listing_of
from core.checkpoints.foreign import inspect_checkpoint
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import Model, ModelSpec, load_model
from core.data.decode import PAD, ImageSpec, UnreadableError, decode
from core.data.description import describe_listing
from core.data.listing import Listing, encode_labels
from core.data.survey import resolve_format, survey_images
from core.editing.measured_cost import WorkEstimate, estimate_costs
from core.maml.settings import TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress, format_count, format_names
from core.runtime.stored import Finite, Text
from core.tasks.generate import TaskFolder, read_folder
from core.workspace.workspace import Project, check_fit

_PROVISIONAL_FORMAT = ImageSpec(84, 84, 3, fit=PAD)
"""Format of a preview of images that differ in size or shape."""
PREVIEW_CLASSES, PREVIEW_IMAGES = 12, 4
"""Classes of a preview, and images of each."""


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


class _Estimate(TypedDict):
    stage: Text
    how_much: Text
    low: Finite
    high: Finite
    gb: Finite


class InspectionResult(TypedDict):
    """The JSON of an :class:`Inspection`, which the inspect command prints."""

    found: list[Text]
    faults: list[Text]
    costs: list[_Estimate]


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
    """Some images of every class as they would be stored, ``(n, height, width, channels)`` uint8.

    Attributes:
        classes: The class of each.
        counts: Images per class, of all classes.
        is_final: This is how the import stores them; else the pixel format is not clear yet.
    """

    pixels: np.ndarray
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    is_final: bool = True


def inspect_images(
    path: Path, options: ImportOptions, progress: Progress | None = None
) -> tuple[Inspection, Preview | None]:
    """Inspect images before they are imported; raise UserError if nothing is there.

    Returns:
        The findings, and some images of the first classes; None if none can be read.
    """
    listing = listing_of(path, options)
    facts = [*describe_listing(listing), *listing.notes]
    sizes = dict(sorted(Counter(listing.table["class"].tolist()).items()))
    faults = []
    if len(sizes) < 2:
        faults.append("There is a single class, and tasks need at least two: check which folders or column name them.")
    if small := [name for name, count in sizes.items() if count < 2]:
        faults.append(
            f"{format_count(len(small), 'class has', 'classes have')} a single image: {format_names(small)}. A task "
            "needs at least one support and one query image per class: remove these classes or add images."
        )
    survey = survey_images(listing, progress)
    if survey.unreadable:
        position, reason = next(iter(survey.unreadable.items()))
        faults.append(
            f"{len(survey.unreadable):,} of {len(listing):,} images cannot be read, the first "
            f"{listing.table['id'].iloc[position]}: {reason}. Repair or remove them, or import with --skip-unreadable."
        )
    try:
        spec, notes = resolve_format(listing, options.target_format, survey)
    except UserError as error:
        pixels, classes, _ = _sample(listing, _PROVISIONAL_FORMAT) if survey.sizes else ([], [], [])
        preview = Preview(np.stack(pixels), tuple(classes), sizes, is_final=False) if pixels else None
        return Inspection(tuple(facts), (*faults, str(error))), preview
    facts += notes
    facts.append("Looked at the headers of all images; the import also finds damaged pixels.")
    size = len(listing) * spec.height * spec.width * spec.channels
    facts.append(
        f"Stored as {spec.height} x {spec.width}, {'greyscale' if spec.channels == 1 else 'colour'}"
        f"{', inverted' if spec.invert else ''}: "
        f"{f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'} on disk."
    )
    pixels, classes, damaged = _sample(listing, spec)
    if damaged and not survey.unreadable:
        faults.append(
            f"{format_count(len(damaged), 'image')} of those looked at more closely cannot be read, the first "
            f"{damaged[0]}. Repair or remove them, or import with --skip-unreadable."
        )
    preview = Preview(np.stack(pixels), tuple(classes), sizes) if pixels else None
    return Inspection(tuple(facts), tuple(faults)), preview


def _sample(listing: Listing, spec: ImageSpec) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Return the pixels and the class of images spread over each of the first classes, and which cannot be read."""
    pixels, classes, damaged = [], [], []
    labels, names = encode_labels(listing.table)
    for label, name in enumerate(names[:PREVIEW_CLASSES]):
        positions = np.flatnonzero(labels == label)
        for position in positions[np.unique(np.linspace(0, len(positions) - 1, PREVIEW_IMAGES).astype(int))]:
            try:
                pixels.append(decode(listing.read(int(position)), *spec, int(listing.table["turn"].iloc[position])))
            except UnreadableError as error:
                damaged.append(f"{listing.table['id'].iloc[position]}: {error}")
                continue
            classes.append(name)
    return pixels, classes, damaged


def span(counts: object) -> str:
    """Return the range of some counts in words: ``5`` or ``3 to 12``."""
    values = np.nan_to_num(np.asarray(counts, dtype=float)).astype(int)
    low, high = values.min(), values.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
