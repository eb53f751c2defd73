"""The estimators by name: which gradient, which curvature, which solver, which score.

A method is a starting point; every part of it can be chosen otherwise, as long as the parts fit together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from core.influence.curvature import CURVATURES
from core.influence.solvers import check_fits
from core.maml.adaptation import INVERSES
from core.runtime.errors import UserError

SUBSAMPLES = ("random", "difficulty", "uncertainty")
GRADIENTS = ("total", "direct")


@dataclass(frozen=True)
class SolveSettings:
    """How the inverse-curvature product is solved.

    Attributes:
        curvature: One of :data:`core.influence.curvature.CURVATURES`.
        solver: One of :data:`core.influence.solvers.SOLVERS`.
        curvature_tasks: The curvature is averaged over this many tasks; 0 means all.
        subsample: Which: drawn at ``random``, those of highest adapted loss (``difficulty``), or those of highest
            predictive entropy (``uncertainty``) (Alg 1, step 2).
        damping: Added to the curvature, as a share of its largest eigenvalue. Raised on its own where the
            curvature is indefinite, which the report then says.
        tolerance: Relative residual to reach.
        iterations: Most curvature products.
        rank: Of the eigenbasis of ``low-rank``; for ``cg`` of its preconditioner, 0 meaning none.
        seed: Of the draw of tasks.
    """

    curvature: str = "gauss-newton"
    solver: str = "cg"
    curvature_tasks: int = 64
    subsample: str = "random"
    damping: float = 0.001
    tolerance: float = 1e-2
    iterations: int = 200
    rank: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.curvature not in CURVATURES:
            raise UserError(f"There is no curvature {self.curvature!r}.", f"Known: {', '.join(CURVATURES)}.")
        check_fits(self.curvature, self.solver)
        if self.subsample not in SUBSAMPLES:
            raise UserError(f"Tasks cannot be drawn by {self.subsample!r}.", f"Use one of {', '.join(SUBSAMPLES)}.")
        if min(self.damping, self.curvature_tasks, self.seed, self.rank) < 0:
            raise UserError("Damping, curvature tasks, rank and seed must be 0 or more.")
        if self.tolerance <= 0 or self.iterations < 1:
            raise UserError("Tolerance and iterations of the solve must be above 0.")
        if self.solver == "low-rank" and self.rank < 1:
            raise UserError("A low-rank solve needs a rank.", "For example --rank 60.")
        if self.solver not in ("low-rank", "cg") and self.rank:
            raise UserError(f"The solver {self.solver} has no rank.", "Leave it at 0.")


@dataclass(frozen=True)
class Estimator:
    """How training data are scored against a target.

    Attributes:
        name: One of :data:`METHODS`.
        solve: The inverse-curvature product; None where there is none (``dot``, ``tracin``).
        gradient: Of the training tasks: ``total``, through the adaptation (Thm 4.1), or ``direct`` (eq. 2-3).
        evaluation: Of the target's loss: ``total``, or ``direct``, the paper's shortened score (Def. 5.2, B.9).
        probes: Passes of the sketch (``self-influence``).
        inner: Inverse of the inner Hessian where adaptation is implicit: ``cg``, or ``ekfac`` as in the paper.
    """

    name: str
    solve: SolveSettings | None = None
    gradient: str = "total"
    evaluation: str = "total"
    probes: int = 0
    inner: str = "cg"

    def __post_init__(self) -> None:
        if self.inner not in INVERSES:
            raise UserError(f"There is no inverse {self.inner!r} of the inner Hessian.", "Use cg or ekfac.")
        for choice in (self.gradient, self.evaluation):
            if choice not in GRADIENTS:
                raise UserError(f"There is no gradient {choice!r}.", "Use total or direct.")

    def question(self) -> dict[str, Any]:
        """What names its answers."""
        return {"method": self.name, **asdict(self)}

    @property
    def words(self) -> str:
        """One line on what it is."""
        return METHODS[self.name].words


@dataclass(frozen=True)
class Method:
    """A named estimator with its usual settings, and a line that says what it is."""

    words: str
    estimator: Estimator


def _method(name: str, words: str, **parts: Any) -> Method:
    return Method(words, Estimator(name, **parts))


METHODS: dict[str, Method] = {
    name: _method(name, words, **parts)
    for name, words, parts in (
        (
            "task-if",
            "task-IF and instance-IF with the Gauss-Newton curvature",
            {"solve": SolveSettings()},
        ),
        (
            "task-if-exact",
            "task-IF and instance-IF with the exact total Hessian, raised to positive definite by damping",
            {"solve": SolveSettings(curvature="exact")},
        ),
        (
            "task-if-paper",
            "task-IF as the paper computes it: total Hessian by gamma, shortened score",
            {"solve": SolveSettings(curvature="gamma", damping=0.0), "evaluation": "direct"},
        ),
        (
            "task-if-fisher",
            "task-IF with the Fisher matrix of the tasks, solved in its dual",
            {"solve": SolveSettings(curvature="task-fisher", solver="dual", curvature_tasks=0)},
        ),
        (
            "direct-if",
            "direct-IF: gradients and Hessian that ignore the adaptation",
            {"solve": SolveSettings(curvature="direct", damping=0.01), "gradient": "direct", "evaluation": "direct"},
        ),
        ("dot", "dot product of total gradients, no curvature", {}),
        ("tracin", "TracIn: dot products of total gradients over the checkpoints of the training", {}),
        (
            "self-influence",
            "self-influence: how much an item's removal raises its own loss; no target; large first",
            {"solve": SolveSettings(solver="low-rank", rank=16, damping=0.1), "probes": 16},
        ),
    )
}
DEFAULT = "task-if"
_UNREAD = {
    "tracin": ("gradient", "evaluation", "inner"),
    "self-influence": ("evaluation",),
}  # what a method never asks for


def estimator(
    name: str, *, gradient: str = "", evaluation: str = "", probes: int = 0, inner: str = "", **solve: Any
) -> Estimator:
    """A method with parts chosen otherwise.

    Args:
        solve: Fields of :class:`SolveSettings`; None or absent means as the method has it.

    Raises:
        UserError: there is no such method, or parts do not fit together.
    """
    if name not in METHODS:
        raise UserError(f"There is no method {name!r}.", f"Known: {', '.join(METHODS)}.")
    chosen = METHODS[name].estimator
    given = {key: value for key, value in solve.items() if value is not None}
    if given and chosen.solve is None:
        raise UserError(f"The method {name} has no curvature, so {next(iter(given))!r} says nothing.", "Leave it out.")
    if chosen.solve is not None and given:
        if given.get("solver", chosen.solve.solver) != chosen.solve.solver and "rank" not in given:
            given["rank"] = 60 if given["solver"] == "low-rank" else 0
        if "curvature" in given and "solver" not in given and chosen.solve.solver == "dual":
            given["solver"] = "dual" if given["curvature"] == "task-fisher" else "cg"
        chosen = replace(chosen, solve=replace(chosen.solve, **given))
    if probes and not chosen.probes:
        raise UserError(f"The method {name} draws no probes.", "Leave them out.")
    for part, asked in (("gradient", gradient), ("evaluation", evaluation), ("inner", inner)):
        if part in _UNREAD.get(name, ()) and asked not in ("", getattr(chosen, part)):
            raise UserError(f"The method {name} has no {part} to choose.", "Leave it out.")
    return replace(
        chosen,
        gradient=gradient or chosen.gradient,
        evaluation=evaluation or chosen.evaluation,
        probes=probes or chosen.probes,
        inner=inner or chosen.inner,
    )


def parse(text: str) -> Estimator:
    """Read ``METHOD`` or ``METHOD:part=value:part=value``, for example ``task-if:damping=0.01:solver=low-rank``.

    Raises:
        UserError: there is no such method or part, or a value is not of its kind.
    """
    name, *parts = text.split(":")
    kinds = {field.name: type(getattr(SolveSettings(), field.name)) for field in fields(SolveSettings)}
    given: dict[str, Any] = {}
    for part in parts:
        key, _, value = part.partition("=")
        kind = kinds.get(key, str if key in ("gradient", "evaluation", "inner") else None)
        if kind is None:
            raise UserError(
                f"{text}: there is no part {key!r}.", f"Known: {', '.join(kinds)}, gradient, evaluation, inner."
            )
        try:
            given[key] = kind(value)
        except ValueError as error:
            raise UserError(f"{text}: {key} is {value!r}, which is no {kind.__name__}.", "Correct it.") from error
    return estimator(name, **given)
