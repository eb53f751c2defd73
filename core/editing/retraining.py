"""How a model was trained, and how it is trained again on other tasks or from other seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.checkpoints.model import Model
from core.maml.backbone import Params
from core.maml.loaded import Loaded
from core.maml.settings import TrainSettings
from core.runtime.errors import UserError

WARM_RATE, WARM_ITERATIONS = 1e-3, 100


def training_settings(model: Model) -> TrainSettings | None:
    """Return how a model was trained; None where its metadata does not say so."""
    try:
        return TrainSettings(**model.metadata["training"])
    except (KeyError, TypeError, UserError):
        return None


def require_training_settings(model: Model) -> TrainSettings:
    """Return how a model was trained; raise UserError if its metadata does not say so."""
    settings = training_settings(model)
    if settings is None:
        raise UserError(
            "The model cannot be retrained: its model.json has no training settings.",
            "Train it with the train command.",
        )
    return settings


@dataclass(frozen=True)
class RetrainSettings:
    """How to train a model again.

    Attributes:
        start: ``fresh``, from initial parameters as the model was, or ``warm``, from the present model: quicker, and
            without the randomness of which optimum is reached, so it shows less of what a real retraining changes.
        iterations: Adam steps; 0: if fresh, as many as the model's training; if warm, none where that training had an
            L-BFGS refinement, which alone leads to the new optimum, else 100.
    """

    start: str = "fresh"
    iterations: int = 0

    def settings(self, model: Model, seed: int) -> TrainSettings:
        """Return the settings of one retraining, with ``seed`` added to that of the model's training.

        Raises:
            UserError: the model's metadata does not say how it was trained.
        """
        training = require_training_settings(model)
        training = replace(training, seed=training.seed + seed)
        if self.start == "fresh":
            return replace(training, iterations=self.iterations or training.iterations)
        iterations = self.iterations or (0 if training.polish else WARM_ITERATIONS)
        return replace(training, iterations=iterations, learning_rate=min(training.learning_rate, WARM_RATE))

    def initial_params(self, model: Model, loaded: Loaded, settings: TrainSettings) -> Params:
        """Return the parameters that the retraining starts from."""
        if self.start == "warm":
            return loaded.params
        return loaded.place(model.spec.init(settings.seed, loaded.compute.torch_dtype()))
