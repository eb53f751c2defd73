"""Settings of the comparison of rankings with retraining; a light import, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from core.editing.settings import STARTS
from core.evidence.methods import ALL_METHODS, DEFAULT_METHODS, ENSEMBLE_SIZES, check_method
from core.runtime.errors import UserError
from core.runtime.settings import Setting, check_settings

if TYPE_CHECKING:
    from core.editing.retraining import RetrainSettings


@dataclass(frozen=True)
class EvidenceSettings:
    """Settings of the comparison of rankings with retraining.

    Attributes:
        methods: Names of :data:`core.evidence.methods.ALL_METHODS`, optionally with parts changed as in
            :func:`core.influence.methods.parse`.
        truth: ``half`` (LDS) or ``one`` (leave one task out).
        subsets, seeds: The number of retrainings is their product; with 2 seeds or more the ceiling is known.
        retrain, iterations: :class:`core.editing.retraining.RetrainSettings`.
        targets: How many held-out tasks are targets, the first ones; 0 means all.
    """

    methods: Annotated[
        tuple[str, ...],
        Setting(
            "Methods to evaluate, separated by commas, or all; see docs/method.md.", words={"all": tuple(ALL_METHODS)}
        ),
    ] = DEFAULT_METHODS
    truth: Annotated[
        str,
        Setting(
            "Subsets to retrain on. half: random halves of the tasks (LDS); one: all tasks but one (leave-one-out).",
            label="Each retraining keeps",
            choices=("half", "one"),
        ),
    ] = "half"
    subsets: Annotated[int, Ge(3), Setting("Number of subsets to retrain on.")] = 20
    seeds: Annotated[
        int, Ge(1), Setting("Retrainings per subset; 2 or more also measure the ceiling of any method.")
    ] = 2
    retrain: Annotated[
        str,
        Setting(
            "Start of each retraining. fresh: initial parameters, as the model was trained; warm: the present model, "
            "which is faster and less noisy but sees less of the effect.",
            label="Retrained",
            choices=STARTS,
        ),
    ] = "fresh"
    iterations: Annotated[
        int, Ge(0), Setting("Adam steps per retraining; 0 means as the model was trained.", label="Adam steps")
    ] = 0
    targets: Annotated[
        int, Ge(0), Setting("Number of held-out tasks used as targets; 0 means all.", label="Held-out tasks")
    ] = 20
    seed: Annotated[int, Ge(0), Setting("Seed of the draw of subsets.")] = 0

    def __post_init__(self) -> None:
        for name in self.methods:
            check_method(name)
        if not self.methods:
            raise UserError("No methods to evaluate.", f"Choose from {', '.join(ALL_METHODS)}.")
        check_settings(self)

    @property
    def start(self) -> RetrainSettings:
        """Return where and for how long a retraining runs."""
        from core.editing.retraining import RetrainSettings

        return RetrainSettings(self.retrain, self.iterations)

    @property
    def members(self) -> int:
        """Return how many additional models trained on all tasks the methods need."""
        return max((ENSEMBLE_SIZES.get(name, 0) for name in self.methods), default=0)
