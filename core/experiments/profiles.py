"""Profiles: the sizes of tasks, network, trainings and repetitions that all experiments share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.influence.methods import SolveSettings
from core.maml.recipes import COLOUR, GREY, LARGE
from core.maml.training import TrainSettings
from core.runtime.errors import UserError

OMNIGLOT, MNIST, MINI_IMAGENET, FC100 = DATA = ("omniglot", "mnist", "mini-imagenet", "fc100")
"""The paper's data sets, in the order of its Table 1."""
DATA_TITLES = {OMNIGLOT: "Omniglot", MNIST: "MNIST", MINI_IMAGENET: "mini-ImageNet", FC100: "FC100"}
WAYS = 5


@dataclass(frozen=True)
class Profile:
    """A size that all experiments can be run at; runs are found again by these fields.

    Attributes:
        seeds: Repetitions; each draws a new split, tasks, noise and initial parameters.
        counts: Training tasks per data set; None means every combination of five classes.
        targets, tests: Held-out tasks that rankings are for, and tasks of other images that measure accuracy.
        filters: Of the four-block convolutional network.
        training: Per data set.
        finetune: Short fine-tunes; from a trained model, at a lower rate than the training.
        refit: How Figure 1 updates the model on the remaining tasks: ``finetune`` or ``retrain``.
        checked: Shares of the training data after which Figure 1 measures accuracy.
        removed: Shares of the training data that Figure 2 removes.
        solve: Of the linear edits; the method chooses their curvature.
        subsets, subset_iterations: Random halves for LDS, each trained from two seeds, and their Adam steps.
        left_out, left_iterations: Tasks left out one at a time, and the Adam steps of those warm retrainings.
        rated: Targets of LDS and leave-one-out.
    """

    name: str
    words: str
    seeds: int
    counts: Mapping[str, int | None]
    shots: int
    queries: int
    targets: int
    tests: int
    filters: int
    training: Mapping[str, TrainSettings]
    finetune: TrainSettings
    refit: str
    checked: tuple[float, ...]
    removed: tuple[float, ...]
    solve: SolveSettings
    subsets: int
    subset_iterations: int
    left_out: int
    left_iterations: int
    rated: int

    def cache_key(self) -> dict[str, Any]:
        """Return the fields that determine what one repetition measures."""
        training = {data: settings.cache_key() for data, settings in self.training.items()}
        trainings = {"training": training, "finetune": self.finetune.cache_key()}
        return asdict(replace(self, words="", seeds=0)) | trainings


_SMALL = Profile(
    name="small",
    words="Two CPU cores, about an hour per experiment and data set: few tasks of few images.",
    seeds=5,
    counts={OMNIGLOT: 300, MNIST: 200, MINI_IMAGENET: 200, FC100: 200},
    shots=2,
    queries=3,
    targets=50,
    tests=200,
    filters=16,
    # Narrower networks need more steps, and in sum more time, for the same accuracy.
    training={
        OMNIGLOT: replace(GREY.training, iterations=600),
        MNIST: replace(GREY.training, iterations=600),
        MINI_IMAGENET: replace(LARGE.training, iterations=200),
        FC100: replace(COLOUR.training, iterations=200),
    },
    finetune=TrainSettings(iterations=60, meta_batch=4, learning_rate=3e-3),
    refit="finetune",
    checked=(0.1, 0.25, 0.4),
    removed=(0.2, 0.4),
    solve=SolveSettings(curvature_tasks=32, damping=0.1, tolerance=0.05),
    subsets=8,
    subset_iterations=300,
    left_out=8,
    left_iterations=100,
    rated=8,
)
_TINY = replace(
    _SMALL,
    name="tiny",
    words="One or two minutes per experiment: shows that everything runs, nothing more.",
    seeds=2,
    counts={OMNIGLOT: 8, MNIST: 8, MINI_IMAGENET: 8, FC100: 8},
    targets=4,
    tests=4,
    filters=4,
    training=dict.fromkeys(DATA, TrainSettings(iterations=8, meta_batch=4, learning_rate=3e-2)),
    finetune=TrainSettings(iterations=2, meta_batch=4, learning_rate=1e-2),
    checked=(0.25,),
    removed=(0.25,),
    solve=SolveSettings(curvature_tasks=4, damping=0.1, tolerance=0.3),
    subsets=3,
    subset_iterations=4,
    left_out=3,
    left_iterations=2,
    rated=2,
)
_FULL = Profile(
    name="full",
    words="The paper's scale, for a GPU: 10,000 tasks (MNIST: 252), 64 filters, 5,000 iterations.",
    seeds=5,
    counts={OMNIGLOT: 10_000, MNIST: None, MINI_IMAGENET: 10_000, FC100: 10_000},
    shots=5,
    queries=5,
    targets=100,
    tests=600,
    filters=64,
    training=dict.fromkeys(DATA, TrainSettings(iterations=5000, meta_batch=16, learning_rate=3e-3)),
    finetune=TrainSettings(iterations=100, meta_batch=16, learning_rate=3e-3),
    refit="retrain",
    checked=(0.1, 0.2, 0.3, 0.4, 0.6),
    removed=(0.05, 0.1, 0.2, 0.3, 0.4),
    solve=SolveSettings(curvature_tasks=64, damping=0.1),
    subsets=20,
    subset_iterations=0,
    left_out=20,
    left_iterations=500,
    rated=20,
)
PROFILES = {one.name: one for one in (_TINY, _SMALL, _FULL)}


def profile_of(name: str) -> Profile:
    """Return the profile of that name; raise UserError if there is none."""
    if name not in PROFILES:
        raise UserError(f"There is no profile {name!r}.", f"Use one of {', '.join(PROFILES)}.")
    return PROFILES[name]
