"""Training recipes: network, adaptation and training for a kind of images, chosen by measurement (docs/training.md).

They are the defaults wherever a model is trained. A field that the user gives replaces that of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.maml.settings import TrainSettings

_LARGE_SIDE = 64
"""Side in pixels from which images count as large; 84 x 84 is usual, and smaller ones are 28 x 28 or 32 x 32."""


@dataclass(frozen=True)
class TrainingRecipe:
    """A recipe for a kind of images.

    Attributes:
        words: The kind of images.
        convnet: Fields of the default network (:class:`core.maml.settings.ModelFields`); other networks keep theirs.
        adaptation: Fields of the adaptation.
        training: Settings of the training.
    """

    words: str
    convnet: Mapping[str, Any]
    adaptation: Mapping[str, Any]
    training: TrainSettings

    def model_fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a model: those ``given``, and those of the recipe for the rest."""
        network = self.convnet if given.get("backbone", "convnet") == "convnet" else {}
        return {**network, **self.adaptation, **given}


GREY = TrainingRecipe(
    "small grey images, such as digits and characters",
    {"pooling": "mean", "activation": "gelu"},
    {"steps": 1, "rate": 0.1},
    TrainSettings(iterations=3600, meta_batch=4, learning_rate=1e-2),
)
COLOUR = TrainingRecipe(
    "small colour images",
    {"pooling": "mean", "activation": "gelu"},
    {"steps": 1, "rate": 0.3},
    TrainSettings(iterations=3600, meta_batch=4, learning_rate=5e-3),
)
LARGE = replace(COLOUR, words="large images, such as 84 x 84")  # not measured


def recipe_for(shape: tuple[int, int, int]) -> TrainingRecipe:
    """Return the recipe for images of ``shape`` (height, width, channels)."""
    height, width, channels = shape
    if max(height, width) >= _LARGE_SIDE:
        return LARGE
    return GREY if channels == 1 else COLOUR
