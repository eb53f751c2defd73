"""What was found in somebody's files, what does not fit, and what the work would cost: before anything is begun."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.actions.compute import Compute, Loaded
from core.actions.images import ImportOptions, listing_of
from core.checkpoints.foreign import inspect_checkpoint
from core.checkpoints.model import Model, ModelSpec, load_model
from core.data.decode import Unreadable, decode
from core.data.listing import SPLITS, Listing, class_sizes
from core.data.store import resolve_format
from core.editing.measured_cost import WorkEstimate, estimate_costs
from core.maml.training import TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.generate import TaskFolder, read_folder
from core.workspace.workspace import Project, check_fit

_TRIED = 48


@dataclass(frozen=True)
class Report:
    """What an inspection found.

    Attributes:
        found: Sentences on what is there.
        faults: Sentences on what is wrong or does not fit, each with what to do.
        costs: Of every stage; empty where the problem is not complete.
    """

    found: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    costs: tuple[WorkEstimate, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(self.found + other.found, self.faults + other.faults, self.costs + other.costs)


@dataclass(frozen=True)
class Preview:
    """Some images as they would be read: ``(n, height, width, channels)`` uint8, and the class of each."""

    pixels: np.ndarray
    classes: tuple[str, ...]


def inspect_images(path: Path, wishes: ImportOptions) -> tuple[Report, Preview | None]:
    """Look at images without reading them all: names, classes, splits, and a few pictures decoded.

    Raises:
        UserError: there is nothing at ``path`` that can be read.
    """
    listing = listing_of(path, wishes)
    sizes = class_sizes(listing.table)
    few = int((sizes < 2).sum())
    found = [
        f"{listing.name}: {len(listing):,} images of {len(sizes):,} classes, {_span(sizes)} a class.",
        *_split_words(listing),
        *listing.notes,
    ]
    faults = []
    if few:
        faults.append(
            f"{few:,} classes have a single image, the first {sizes.index[0]!r}: a task needs two of a class, "
            "one to adapt to and one to be judged on. Remove them or add images."
        )
    try:
        frame = resolve_format(listing, wishes.form)
    except UserError as error:
        return Report(tuple(found), (*faults, str(error))), None
    pixels, classes, bad = [], [], []
    spread = np.unique(np.linspace(0, len(listing) - 1, min(_TRIED, len(listing))).astype(int))
    for position in map(int, spread):
        row = listing.table.iloc[position]
        try:
            one = decode(listing.read(position), *frame, int(row["turn"]))
        except Unreadable as error:
            bad.append(f"{row['id']}: {error}")
            continue
        pixels.append(one)
        classes.append(str(row["class"]))
    found.append(
        f"Brought to {frame.height} x {frame.width}, {'grey' if frame.channels == 1 else 'colour'}"
        f"{', inverted' if frame.invert else ''}: {len(listing) * math.prod(frame[:3]) / 1e9:.2g} GB on disk."
    )
    if bad:
        faults.append(
            f"{len(bad)} of {len(spread)} images that were tried cannot be read: {bad[0]}. "
            "Mend or remove them, or import with --skip-unreadable."
        )
    preview = Preview(np.stack(pixels), tuple(classes)) if pixels else None
    return Report(tuple(found), tuple(faults)), preview


def inspect_checkpoint_file(checkpoint: Path, backbone: str, tasks: Path | None) -> Report:
    """Look into a checkpoint, and at whether it fits the tasks.

    Args:
        backbone: The name of a backbone, or of a factory that is allowed; empty: find out.
        tasks: A folder of tasks whose ways and images it is to fit.

    Raises:
        UserError: the file cannot be read at all.
    """
    folder = read_folder(tasks) if tasks else None
    seen = inspect_checkpoint(
        checkpoint,
        backbone=backbone or None,
        shape=folder.images().shape if folder else None,
        ways=folder.train.ways if folder else None,
    )
    numbers = sum(math.prod(tensor.shape) for tensor in seen.tensors)
    found = [f"{checkpoint.name}: {seen.kind}, {len(seen.tensors)} tensors, {numbers:,} numbers."]
    found += [f"Network: {seen.spec.network_words}."] if seen.spec else []
    return Report((*found, *seen.notes), seen.faults)


def inspect_problem(
    tasks: Path,
    model: Path | None,
    spec: ModelSpec | None,
    training: TrainSettings | None,
    compute: Compute,
    progress: Progress,
) -> Report:
    """Whether tasks and a model fit, and what each stage of the work would cost on this machine.

    Args:
        tasks: A folder of tasks.
        model: A folder with a model; None asks what a model of ``spec`` would cost to train and use.
        training: Of a model that is still to be trained.

    Raises:
        UserError: the tasks or the model cannot be read.
    """
    folder = read_folder(tasks)
    report = Report(tuple(_task_words(folder)))
    if model is not None:
        loaded = load_model(model)
    elif spec is not None:
        images = folder.images()
        wanted = spec.model_copy(update={"ways": folder.train.ways, "shape": images.shape})
        loaded = Model(wanted, wanted.init(0), {})
    else:
        return report
    report += Report((f"Model: {loaded.spec.words}; {loaded.size:,} parameters.",))
    images = folder.images()
    try:
        check_fit(images, folder, loaded)
    except UserError as error:
        return report + Report(faults=(str(error),))
    problem = Loaded(Project(images, folder, loaded), compute)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        report += Report((f"The machine is busy (load {load:.1f} on {cores} cores); alone, the work is faster.",))
    return report + Report(costs=tuple(estimate_costs(problem, training, progress)))


def _split_words(listing: Listing) -> list[str]:
    table = listing.table[listing.table["split"] != ""]
    if table.empty:
        return ["No split of its own: hold out images of every class, or whole classes."]
    words = [
        f"{part} {rows['class'].nunique():,} classes, {len(rows):,} images" for part, rows in table.groupby("split")
    ]
    order = sorted(words, key=lambda text: SPLITS.index(text.split(" ")[0]))
    return [f"Its own split: {'; '.join(order)}."]


def _task_words(folder: TaskFolder) -> list[str]:
    train, heldout = folder.train, folder.heldout
    rows = train.rows
    per_class = rows.groupby(["task_id", "label", "role"]).size().unstack("role")
    shots, queries = (_span(per_class[role]) for role in ("support", "query"))
    return [
        f"Tasks: {len(train):,} for training, {len(heldout):,} held out; {train.ways}-way, {shots}-shot, "
        f"{queries} queries a class, over {folder.data}.",
        f"They use {rows['image_id'].nunique():,} images of {rows['class'].nunique():,} classes in {len(rows):,} rows.",
    ]


def _span(counts: object) -> str:
    values = np.nan_to_num(np.asarray(counts, dtype=float)).astype(int)
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
