"""What an edit costs, in meta-gradients: gradients of one task through its adaptation.

Seconds depend on the machine and on what else it does; passes over tasks do not. What one pass costs in gradients is
kept here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.maml.training import TrainSettings

PRODUCT = 2.0
"""A curvature product runs forward and backward once more each; written out it takes 1.4 to 2 gradients."""
EVALUATION = 0.5
"""Adapting and the query loss, without the way back."""
LINE_SEARCH = 1.3
"""Gradients of all tasks that an iteration of L-BFGS takes, trials of its line search included."""


@dataclass(frozen=True)
class Cost:
    """Passes over single tasks.

    Attributes:
        gradients: With the derivative of the query loss.
        products: With a product of the task's curvature and a vector.
        evaluations: With the query loss alone.
    """

    gradients: float = 0
    products: float = 0
    evaluations: float = 0

    @property
    def meta_gradients(self) -> float:
        """All of them, in gradients."""
        return self.gradients + PRODUCT * self.products + EVALUATION * self.evaluations

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.gradients + other.gradients,
            self.products + other.products,
            self.evaluations + other.evaluations,
        )


def training_cost(settings: TrainSettings, tasks: int) -> float:
    """Meta-gradients of training on that many tasks, if the polish runs to its end."""
    return settings.iterations * min(settings.meta_batch, tasks) + settings.polish * LINE_SEARCH * tasks
