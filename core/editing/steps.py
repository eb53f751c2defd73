"""A few preconditioned steps: Adam, with one task per step, on the tasks after the changes.

The diagonal of Adam is the preconditioner. One task per step gives the most steps for a number of meta-gradients; in
seconds, larger batches are cheaper.

The steps may begin at an earlier snapshot of the training. Wrong labels are memorised later than right ones are learned
(Arpit et al. 2017, "A Closer Look at Memorization in Deep Networks"), so less of them must be unlearned there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.editing.newton import mean_loss
from core.editing.settings import EditSettings
from core.maml.backbone import Params
from core.maml.cost import Cost, training_cost
from core.maml.episodes import Episodes, no_progress
from core.maml.objective import Bilevel
from core.maml.settings import TrainSettings
from core.maml.training import SNAPSHOT_COUNT, train
from core.runtime.errors import UserError
from core.runtime.progress import Progress

REWIND_TASKS = 8
"""Validation tasks, or held-out ones if there are none, that select the snapshot by default."""
_MIN_STEPS = 40


@dataclass(frozen=True)
class StepSettings:
    """The number of steps and where they begin.

    Attributes:
        budget: Steps, each of one meta-gradient.
        rate: Initial learning rate of Adam; it falls to 0 along a cosine.
        seed: Seed of the order of the tasks and of the draw of the tasks that select the snapshot.
        rewind_tasks: Tasks that select the snapshot to begin at; 0: begin at the present model.
    """

    budget: int
    rate: float = 3e-3
    seed: int = 0
    rewind_tasks: int = 0

    @property
    def cost(self) -> Cost:
        """Return the cost of the steps, without the selection of the snapshot."""
        return Cost(gradients=self.budget)


def step_settings(
    training: TrainSettings | None,
    tasks: int,
    validation: int = 0,
    budget: float = EditSettings.budget,
    rewind_tasks: int = 0,
) -> StepSettings:
    """Return the steps that cost a share ``budget`` of the model's training, including the selection of the snapshot.

    The training is on ``tasks`` tasks and checked on ``validation`` tasks. There are at least 40 steps, and 40 where it
    is not known how the model was trained (``training`` is None).

    Raises:
        UserError: the budget is not a share.
    """
    if not 0 < budget <= 1:
        raise UserError(f"The budget {budget:g} is not a share of a retraining.", "Use more than 0 and at most 1.")
    training_meta_gradients = 0.0 if training is None else training_cost(training, tasks, validation)
    selection = selection_cost(rewind_tasks).meta_gradients
    return StepSettings(max(_MIN_STEPS, round(budget * training_meta_gradients - selection)), rewind_tasks=rewind_tasks)


def selection_cost(rewind_tasks: int) -> Cost:
    """Return the cost of the selection of a snapshot on ``rewind_tasks`` tasks, beforehand."""
    return Cost(evaluations=rewind_tasks * (SNAPSHOT_COUNT + 1))


@dataclass(frozen=True)
class SnapshotChoice:
    """The candidate that steps begin at, with its position ``number`` among all.

    ``losses`` are the mean losses of the candidates on the tasks that selected, in nats; ``tasks`` is their
    number.
    """

    params: Params
    number: int
    losses: list[float]
    tasks: int

    @property
    def cost(self) -> Cost:
        """Return the cost of the selection."""
        return Cost(evaluations=self.tasks * len(self.losses))


def select_snapshot(
    model: Bilevel, candidates: Sequence[Params], episodes: Episodes, tasks: int, seed: int = 0
) -> SnapshotChoice:
    """Return the candidate with the lowest mean query loss on ``tasks`` tasks of ``episodes``, the earliest of equals.

    If these are held-out tasks, as there are no validation tasks, later measurements on them are slightly optimistic.
    """
    sample = np.sort(np.random.default_rng([seed, 47]).permutation(len(episodes))[:tasks])
    losses = [mean_loss(model, params, episodes, sample, no_progress) for params in candidates]
    best = int(np.argmin(np.nan_to_num(losses, nan=np.inf)))
    return SnapshotChoice(candidates[best], best, losses, len(sample))


def start_text(figures: Mapping[str, Any]) -> str:
    """Return where the steps of an ``edit.json`` began, in words; empty for edits that selected no snapshot."""
    start = figures.get("start")
    if start is None:
        return ""
    end, number = len(start["losses"]) - 1, start["number"]
    place = "the present model" if number == end else f"snapshot {number + 1} of {end} of its training"
    return f"{place}, which has the lowest loss on {start['tasks']} {start.get('kind', 'held-out')} tasks"


def single_task_finetune(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    settings: StepSettings,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Params:
    """Return ``params`` after the steps on ``episodes``; those that an interrupted attempt left in ``folder`` resume.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    adam = TrainSettings(settings.budget, meta_batch=1, learning_rate=settings.rate, polish=0, seed=settings.seed)
    return train(model, params, episodes, adam, folder=folder, progress=progress, name="steps").params
