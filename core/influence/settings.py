"""Settings of the inverse-curvature solve and of ranking methods; a light import, without PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt

from core.maml.settings import INVERSES
from core.runtime.errors import UserError
from core.runtime.settings import Setting, check_settings

CURVATURES = ("gauss-newton", "exact", "direct", "task-fisher", "gamma")
"""See :mod:`core.influence.curvature`."""
SOLVERS = ("cg", "neumann", "low-rank", "dual")
"""See :mod:`core.influence.solvers`."""
SUBSAMPLES = ("random", "difficulty", "uncertainty")
SELF_INFLUENCE = "self-influence"
"""The method that ranks without a target, what looks wrong first."""
METHOD_NAMES = (
    "task-if",
    "task-if-exact",
    "task-if-paper",
    "task-if-fisher",
    "direct-if",
    "dot",
    "tracin",
    SELF_INFLUENCE,
)
"""See :data:`core.influence.methods.METHODS`."""
GRADIENTS = ("total", "direct")


@dataclass(frozen=True)
class SolveSettings:
    """The settings of an inverse-curvature solve.

    ``subsample`` is step 2 of Alg 1. ``damping`` is raised automatically where the curvature is indefinite, which the
    report then says.
    """

    curvature: Annotated[
        str,
        Setting(
            "Curvature. gauss-newton is never indefinite; exact is the total Hessian, damped where indefinite; direct "
            "ignores the adaptation; task-fisher is a sum of one g g^T per task; gamma is a multiple of the identity, "
            "the paper's approximation.",
            choices=CURVATURES,
        ),
    ] = "gauss-newton"
    solver: Annotated[
        str,
        Setting(
            "Solver. cg: conjugate gradients; neumann: the series of the literature, slower; low-rank: a truncated "
            "eigenbasis; dual: task-fisher only.",
            choices=SOLVERS,
        ),
    ] = "cg"
    curvature_tasks: Annotated[
        int,
        Ge(0),
        Setting("Number of tasks the curvature is averaged over; 0 means all.", label="Tasks for the curvature"),
    ] = 64
    subsample: Annotated[
        str,
        Setting(
            "Which tasks the curvature is averaged over: random ones, those of highest adapted loss (difficulty) or "
            "those of highest predictive entropy (uncertainty).",
            label="Which tasks",
            choices=SUBSAMPLES,
        ),
    ] = "random"
    damping: Annotated[
        float,
        Ge(0),
        Setting(
            "Damping, as a share of the largest eigenvalue of the curvature. More is more stable and closer to plain "
            "gradients."
        ),
    ] = 0.001
    tolerance: Annotated[
        float, Gt(0), Setting("Relative residual at which the solve stops.", label="Relative residual")
    ] = 1e-2
    iterations: Annotated[
        int,
        Ge(1),
        Setting("Maximum curvature products of the solve.", label="Maximum iterations", option="solve-iterations"),
    ] = 200
    rank: Annotated[
        int, Ge(0), Setting("Rank of the low-rank basis; with cg, rank of its preconditioner (0: none).")
    ] = 0
    seed: Annotated[
        int, Ge(0), Setting("Seed of the draw of tasks for the curvature.", label="Solve seed", option="solve-seed")
    ] = 0

    def __post_init__(self) -> None:
        check_fits(self.curvature, self.solver)
        check_settings(self)
        if self.solver == "low-rank" and self.rank < 1:
            raise UserError("The low-rank solver needs a rank above 0.", "For example: --rank 60.")
        if self.solver not in ("low-rank", "cg") and self.rank:
            raise UserError(f"The solver {self.solver} does not use a rank.", "Set it to 0.")


class FitError(UserError):
    """An error for a solver that does not fit a curvature."""


def check_fits(curvature: str, solver: str) -> None:
    """Raise FitError if the solver does not fit the curvature, with the reason."""
    if solver == "ekfac":
        raise FitError(
            "EK-FAC assumes that layers are independent, but through the adaptation every layer of the total Hessian "
            "depends on every other; it is only available for the inner Hessian.",
            "Use cg; for a model trained with --algorithm imaml, --inner ekfac.",
        )
    if solver == "dual" and curvature != "task-fisher":
        raise FitError(
            f"The dual solver needs a curvature that is a sum of one g g^T per task; {curvature} is not.",
            "Use it with task-fisher, or use cg.",
        )
    if solver in ("low-rank", "neumann") and curvature == "gamma":
        raise FitError(
            "The gamma curvature is a multiple of the identity: it has no smaller basis and needs no series.",
            "Use cg, which solves it in one step.",
        )


@dataclass(frozen=True)
class Estimator:
    """A choice of gradients and curvature that scores training data against a target.

    Attributes:
        name: One of :data:`core.influence.methods.METHODS`.
        solve: The inverse-curvature solve; None for methods without one (``dot``, ``tracin``).
        gradient: ``total`` is that of Thm 4.1, ``direct`` that of eq. 2-3.
        evaluation: ``direct`` is the paper's shortened score (Def. 5.2, B.9).
        inner: For implicit adaptation only.
    """

    name: Annotated[
        str,
        Setting(
            "Ranking method; further options change parts of it. See docs/method.md.",
            label="Method",
            option="method",
            choices=METHOD_NAMES,
        ),
    ] = METHOD_NAMES[0]
    solve: SolveSettings | None = None
    gradient: Annotated[
        str,
        Setting(
            "Gradient of the training data: total (through the adaptation) or direct (adapted parameters held fixed).",
            label="Gradient of the training data",
            choices=GRADIENTS,
        ),
    ] = "total"
    evaluation: Annotated[
        str,
        Setting(
            "Gradient of the target's loss: total (through the adaptation) or direct (the paper's shortened score).",
            label="Gradient of the target's loss",
            choices=GRADIENTS,
        ),
    ] = "total"
    probes: Annotated[
        int, Ge(0), Setting("Passes of the sketch of self-influence; more are more accurate and slower.")
    ] = 0
    inner: Annotated[
        str,
        Setting(
            "Inverse of the inner Hessian (imaml models only): cg solves with the exact one; ekfac is the paper's "
            "approximation.",
            label="Inverse of the inner Hessian",
            choices=INVERSES,
        ),
    ] = "cg"

    def __post_init__(self) -> None:
        check_settings(self)

    def cache_key(self) -> dict[str, Any]:
        """Return the estimator's part of the cache key of a ranking."""
        return {"method": self.name, **asdict(self)}

    @property
    def description(self) -> str:
        """Return one line about the method."""
        from core.influence.methods import METHODS

        return METHODS[self.name].description
