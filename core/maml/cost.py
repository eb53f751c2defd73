"""Compute the cost of trainings and edits in meta-gradients, and in seconds at a measured pace.

A meta-gradient is the gradient of one task through its adaptation. Seconds depend on the machine and its load, but the
number of passes over tasks does not. Every predicted duration is computed by :func:`seconds_of` from a :class:`Cost`.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.maml.settings import TrainSettings

PRODUCT = 2.0
"""Meta-gradients per curvature product, which takes a second forward and backward pass. Measured: 1.4 to 2."""
EVALUATION = 0.5
"""Meta-gradients per evaluation: adaptation and query loss without the backward pass."""
LINE_SEARCH = 1.3
"""Full-batch gradients per L-BFGS iteration, including the trials of its line search, as measured."""
SUPPORT_ROW, QUERY_ROW = 3.2, 1.1
"""Meta-gradients per row gradient (core.editing.prepared), as measured."""


@dataclass(frozen=True)
class Cost:
    """A count of passes over single tasks: with the gradient, with a curvature product, or with the loss alone."""

    gradients: float = 0
    products: float = 0
    evaluations: float = 0

    @property
    def meta_gradients(self) -> float:
        """Return the total, in meta-gradients."""
        return self.gradients + PRODUCT * self.products + EVALUATION * self.evaluations

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.gradients + other.gradients, self.products + other.products, self.evaluations + other.evaluations
        )


@dataclass(frozen=True)
class Pace:
    """The seconds per pass over one task on this machine.

    ``product`` and ``evaluation`` of None are derived from ``gradient`` by :data:`PRODUCT` and :data:`EVALUATION`.
    """

    gradient: float
    product: float | None = None
    evaluation: float | None = None


def seconds_of(cost: Cost, pace: Pace) -> float:
    """Return the seconds that ``cost`` takes at ``pace``."""
    product = PRODUCT * pace.gradient if pace.product is None else pace.product
    evaluation = EVALUATION * pace.gradient if pace.evaluation is None else pace.evaluation
    return cost.gradients * pace.gradient + cost.products * product + cost.evaluations * evaluation


def training_passes(settings: TrainSettings, tasks: int, validation: int = 0) -> Cost:
    """Return the cost of training on ``tasks`` tasks, checked on ``validation`` tasks and as many training tasks.

    Assumes that training does not stop early and that the L-BFGS refinement uses all its iterations.
    """
    adam = settings.iterations * min(settings.meta_batch, tasks)
    checks = min(settings.checks, settings.iterations) * (validation + min(validation, tasks))
    return Cost(gradients=adam + settings.polish * LINE_SEARCH * tasks, evaluations=checks)


def training_cost(settings: TrainSettings, tasks: int, validation: int = 0) -> float:
    """Return the cost of :func:`training_passes` in meta-gradients."""
    return training_passes(settings, tasks, validation).meta_gradients
