"""A few preconditioned steps: Adam, of one task each, on the tasks as they are after the changes.

The diagonal of Adam is the preconditioner. One task a step makes the most steps of a number of meta-gradients; in
seconds larger batches are cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.editing.cost import Cost
from core.errors import UserError
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel
from core.maml.training import TrainSettings, train
from core.progress import Progress


@dataclass(frozen=True)
class StepSettings:
    """How many steps.

    Attributes:
        budget: Steps, each of one meta-gradient.
        rate: Of Adam at first; it falls to 0 along a cosine.
        seed: Of the order of the tasks.
    """

    budget: int
    rate: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise UserError(f"A budget of {self.budget} steps is none.", "Use 1 or more.")
        if not 0 < self.rate < np.inf or self.seed < 0:
            raise UserError("The rate of the steps must be above 0, their seed 0 or more.")

    @property
    def cost(self) -> Cost:
        return Cost(gradients=self.budget)


def few_steps(
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
