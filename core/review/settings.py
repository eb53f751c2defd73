"""Settings of the review queue; importing them is light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from core.runtime.settings import Setting, check_settings

SLOW = ("self_influence", "harm", "cross_validated")
"""Scores beyond the fast ones (:mod:`core.review.member_scores`)."""

Rounds = Annotated[int, Ge(1), Setting("Times that freshly drawn tasks score every label.")]
"""Rounds of scoring tasks (:mod:`core.review.scoring`)."""


@dataclass(frozen=True)
class QueueSettings:
    """How a review queue is built."""

    slow: Annotated[
        tuple[str, ...],
        Setting(
            "Slow scores to add, separated by commas. They help where the fast ones do badly; each is computed again "
            "for every copy with injected errors.",
            label="Slow scores",
            choices=SLOW,
        ),
    ] = ()
    rounds: Rounds = 4
    calibrate: Annotated[
        bool,
        Setting(
            "Inject label errors into copies of the data to choose the best score and to predict how many errors "
            "remain.",
            label="Calibrate with injected errors",
        ),
    ] = True
    seed: Annotated[int, Ge(0), Setting("Random seed.")] = 0

    def __post_init__(self) -> None:
        check_settings(self)
