"""Define the settings for drawing tasks; this module imports quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from core.runtime.settings import Setting, check_settings

SPLITS = ("auto", "official", "images", "classes")
HELDOUT_PARTS = ("test", "val")
VALIDATION_TASKS = 50
PRESETS = {
    "none": "none",
    "easy": "tasks:0.4:0.8",
    "hard": "tasks:0.15:0.3",
    "image": "images:0.1",
    "confusion": "lookalike:0.1",
}
"""Presets of label noise by name, in the format of :meth:`core.tasks.noise.Noise.parse`."""


@dataclass(frozen=True)
class TaskSettings:
    """A set of parameters for drawing a folder of tasks; the same settings give the same tasks.

    Attributes:
        count: Number of training tasks; None means every combination of classes once.
        split: ``official`` uses the data set's own split, ``images`` holds out images of every class, ``classes`` holds
            out whole classes; ``auto`` means official if it has both parts, else images.
        validation: Number of validation tasks; None means as many as held-out tasks, but at most 50, or none where
            the images are too few.
        validation_share: Of the part of the images or classes that training tasks would be drawn from; not used where
            the official split has a part ``val`` that the held-out tasks leave.
        noise: As :meth:`core.tasks.noise.Noise.parse` accepts it; injected into the training tasks only.
    """

    data: Annotated[
        str, Setting("Image set: mnist5k, shapes, or the name or folder of an imported one.", label="Image set")
    ] = "mnist5k"
    ways: Annotated[int, Ge(2), Setting("Classes per task (N-way).")] = 5
    shots: Annotated[int, Ge(1), Setting("Support images per class (K-shot).")] = 5
    queries: Annotated[int, Ge(1), Setting("Query images per class.")] = 10
    count: Annotated[
        int | None,
        Ge(1),
        Setting(
            "Training tasks; 0 (the default) means every combination of classes once.",
            label="Training tasks",
            words={"0": None},
        ),
    ] = None
    heldout: Annotated[int, Ge(1), Setting("Held-out tasks.", label="Held-out tasks")] = 100
    split: Annotated[
        str,
        Setting(
            "What to hold out. official: the split that the images come with; images: images of every class; classes: "
            "whole classes; auto: official if it has both parts, otherwise images.",
            label="Hold out",
            choices=SPLITS,
        ),
    ] = "auto"
    heldout_split: Annotated[
        str, Setting("Part of the official split to draw held-out tasks from.", label="Part", choices=HELDOUT_PARTS)
    ] = "test"
    heldout_share: Annotated[
        float, Gt(0), Lt(1), Setting("Share of the images or classes to hold out.", label="Share held out")
    ] = 0.3
    noise: Annotated[
        str,
        Setting(
            "Label noise to inject into the training tasks: none, tasks:SHARE:LABELS, images:SHARE, lookalike:SHARE, "
            "or the presets easy, hard, image, confusion. Injected errors are recorded in planted.parquet.",
            label="Inject label noise",
        ),
    ] = "none"
    seed: Annotated[int, Ge(0), Setting("Seed of the draw; the same seed gives the same tasks.")] = 0
    skip_small: Annotated[
        bool,
        Setting(
            "Leave out classes with fewer images than a task needs.",
            label="Leave out classes that are too small",
            option="skip-small-classes",
        ),
    ] = False
    validation: Annotated[
        int | None,
        Ge(0),
        Setting(
            "Validation tasks, by which training chooses the step to keep; no accuracy is reported on them. auto: as "
            f"many as held-out tasks, at most {VALIDATION_TASKS}, or none where there are too few images; 0: none.",
            label="Validation tasks",
            words={"auto": None},
        ),
    ] = None
    validation_share: Annotated[
        float,
        Gt(0),
        Lt(1),
        Setting(
            "Share of the images or classes for training that validation tasks are drawn from instead, unless the "
            "official split has a part for them.",
            label="Share for validation",
        ),
    ] = 0.1

    def __post_init__(self) -> None:
        check_settings(self)
