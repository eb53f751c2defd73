"""Settings of the recommendation; importing them is light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from core.review.settings import Rounds
from core.runtime.settings import Setting, check_settings


@dataclass(frozen=True)
class RecommendSettings:
    """How scores are compared on copies of the data with injected label noise."""

    rounds: Rounds = 4
    seed: Annotated[int, Ge(0), Setting("Random seed of the copies and of the injected noise.")] = 0

    def __post_init__(self) -> None:
        check_settings(self)
