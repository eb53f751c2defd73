"""A few preconditioned steps: Adam, of one task each, on the tasks as they are after the changes.

The diagonal of Adam is the preconditioner. One task a step makes the most steps of a number of meta-gradients; in
seconds larger batches are cheaper.

They may begin at an earlier snapshot of the training. What is wrong in the tasks is learned by heart later than what is
right (Arpit et al. 2017, "A Closer Look at Memorization in Deep Networks"), so that less of it must be unlearned there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.editing.cost import Cost
from core.editing.newton import mean_loss
from core.maml.backbone import Params
from core.maml.episodes import Episodes, no_progress
from core.maml.objective import Bilevel
from core.maml.training import TrainSettings, train
from core.runtime.errors import UserError
from core.runtime.progress import Progress


@dataclass(frozen=True)
class StepSettings:
    """How many steps.

    Attributes:
        budget: Steps, each of one meta-gradient.
        rate: Of Adam at first; it falls to 0 along a cosine.
        seed: Of the order of the tasks, and of which held-out ones choose.
        rewind_tasks: Held-out tasks that choose the snapshot to begin at; 0: begin at the present model.
    """

    budget: int
    rate: float = 1e-2
    seed: int = 0
    rewind_tasks: int = 0

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise UserError(f"A budget of {self.budget} steps is none.", "Use 1 or more.")
        if not 0 < self.rate < np.inf or min(self.seed, self.rewind_tasks) < 0:
            raise UserError("The rate of the steps must be above 0, their seed and the tasks that choose 0 or more.")

    @property
    def cost(self) -> Cost:
        return Cost(gradients=self.budget)


@dataclass(frozen=True)
class Start:
    """Where steps begin.

    Attributes:
        number: Of the candidate that was chosen, from 0.
        losses: ``(candidates,)`` mean loss of the held-out tasks that chose.
        tasks: How many of these there were.
    """

    params: Params
    number: int
    losses: list[float]
    tasks: int

    @property
    def cost(self) -> Cost:
        return Cost(evaluations=self.tasks * len(self.losses))


def select_snapshot(
    model: Bilevel, candidates: Sequence[Params], heldout: Episodes, tasks: int, seed: int = 0
) -> Start:
    """The candidate that has the lowest mean query loss on ``tasks`` of the held-out tasks, the earliest of equals.

    What these tasks measure afterwards is chosen by them a little: it is one choice of few, and of few tasks.
    """
    some = np.sort(np.random.default_rng([seed, 47]).permutation(len(heldout))[:tasks])
    losses = [mean_loss(model, one, heldout, some, no_progress) for one in candidates]
    best = int(np.argmin(np.nan_to_num(losses, nan=np.inf)))
    return Start(candidates[best], best, losses, len(some))


def single_task_finetune(
    model: Bilevel,
    params: Params,
    kept: Episodes,
    settings: StepSettings,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Params:
    """``params`` after the steps on the tasks ``kept``.

    Args:
        folder: Where to keep the state; steps that were interrupted go on from there.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    adam = TrainSettings(settings.budget, meta_batch=1, learning_rate=settings.rate, polish=0, seed=settings.seed)
    return train(model, params, kept, adam, folder=folder, progress=progress, name="steps").params
