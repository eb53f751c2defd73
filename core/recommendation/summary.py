"""What is recommended for one level, in figures and in sentences; importing it is light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from core.runtime.progress import format_count

if TYPE_CHECKING:
    import pandas as pd

LEVELS = ("tasks", "images", "instances")
"""What is recommended for removal; ``instances`` are the rows of the task list."""
CANDIDATE_WORDS = {
    "classifier": "classifier on the features",
    "scoring_loss": "loss in freshly drawn tasks",
    "loss": "adapted loss",
    "suspected": "share of suspected label errors",
    "self_influence": "self-influence",
    "harm": "influence on the held-out tasks",
    "combination": "combination of several scores",
}
"""The candidates (:mod:`core.recommendation.scores`) in words."""
PROTOCOL_WORDS = {
    "easy": "40 % of the tasks, 80 % of their labels",
    "hard": "15 % of the tasks, 30 % of their labels",
    "image": "10 % of the images, any other class",
    "confusion": "10 % of the images, a similar class",
}
"""The presets of label noise that are injected (:data:`core.tasks.settings.PRESETS`), in words."""
SUSPICIOUS = 0.5
"""Probability of being wrong from which an item is proposed for removal, and framed in grids."""
ITEM_WORDS = {"tasks": "task", "images": "image", "instances": "row"}
"""An item of each level."""
_WRONG_WORDS = {"tasks": "noisy", "images": "mislabelled", "instances": "mislabelled"}
_MEASURED_ON = {"tasks": "easy", "images": "image", "instances": "image"}
"""The protocol that the sentence on each level reports, if it could be injected."""


@dataclass(frozen=True)
class LevelRecommendation:
    """What is recommended for the items of one level.

    Attributes:
        level: ``tasks``, ``images`` or ``instances``.
        candidate, words: The score that orders the items, by its name and in words.
        sentence: How well it finds injected errors, beside influence.
        items: Number of items.
        proposed: Number of items to remove, or of images and rows to relabel: the first ones, as long as each is at
            least as likely wrong as right.
        expected_share: Expected share of wrong items among the proposed; None if none are proposed.
        expected_wrong: Expected number of wrong items in all; None if it cannot be told.
        weights: Weights of the scores in the combination; empty unless it is the candidate.
        notes: Sentences on what limits the recommendation.
    """

    level: str
    candidate: str
    words: str
    sentence: str
    items: int
    proposed: int
    expected_share: float | None
    expected_wrong: float | None
    weights: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LevelRecommendation:
        """Return one of the ``levels`` of ``recommendation.json``."""
        return cls(**{**value, "notes": tuple(value["notes"])})

    def after_tasks(self) -> LevelRecommendation:
        """Return the same with a note that tasks, which are proposed for removal too, come first."""
        note = (
            f"Begin with the tasks: many {ITEM_WORDS[self.level]}s look wrong only because their tasks are noisy. "
            "Without those, recommend again."
        )
        return replace(self, notes=(*self.notes, note))

    @property
    def proposal(self) -> str:
        """Return a sentence on how many items to remove, and how many are expected to be wrong."""
        item, wrong = ITEM_WORDS[self.level], _WRONG_WORDS[self.level]
        if self.expected_wrong is None:
            return f"No number of {item}s is proposed."
        in_all = f"About {self.expected_wrong:,.0f} of {format_count(self.items, item)} are expected to be {wrong}"
        if not self.proposed or self.expected_share is None:
            return f"No {item} is proposed for removal: none is more likely {wrong} than not. {in_all}."
        first = f"the first {self.proposed:,} {item}s" if self.proposed > 1 else f"the first {item}"
        verb = "remove" if self.level == "tasks" else "relabel or remove"
        return f"Proposed: {verb} {first}, of which {self.expected_share:.0%} are expected to be {wrong}. {in_all}."


def measured_sentence(level: str, candidate: str, measured: pd.DataFrame | None) -> str:
    """Return how well the candidate of a level finds injected errors, and influence for comparison.

    ``measured`` is :attr:`core.recommendation.choice.Choice.table`; None if nothing could be measured.
    """
    start = f"Recommended here: {CANDIDATE_WORDS[candidate]}"
    if measured is None:
        return f"{start}. It could not be compared with other scores on these data."
    protocols = list(measured["protocol"])
    protocol = _MEASURED_ON[level] if _MEASURED_ON[level] in protocols else protocols[0]
    measured = measured[measured["protocol"] == protocol]
    found, first = measured.set_index("candidate")["found"], measured["first"].iloc[0]
    other, name = ("loss", CANDIDATE_WORDS["loss"]) if candidate == "harm" else ("harm", "influence")
    return (
        f"{start}. It finds {found[candidate]:.0%} of injected {_WRONG_WORDS[level]} {ITEM_WORDS[level]}s in the first "
        f"{first:.0%}; {name} finds {found[other]:.0%}."
    )
