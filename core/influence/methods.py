"""The ranking methods by name: which gradient, which curvature, which solver, which score.

A method is a set of defaults; each part can be changed, as long as the parts fit together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from core.influence.curvature import CURVATURES
from core.influence.solvers import check_fits
from core.maml.adaptation import INVERSES, Implicit
from core.maml.objective import Bilevel
from core.runtime.errors import UserError

SUBSAMPLES = ("random", "difficulty", "uncertainty")
GRADIENTS = ("total", "direct")


@dataclass(frozen=True)
class SolveSettings:
    """The settings of an inverse-curvature solve.

    Attributes:
        curvature: One of :data:`core.influence.curvature.CURVATURES`.
        solver: One of :data:`core.influence.solvers.SOLVERS`.
        curvature_tasks: The curvature is averaged over this many tasks; 0 means all.
        subsample: How they are chosen: at ``random``, by highest adapted loss (``difficulty``), or by highest
            predictive entropy (``uncertainty``) (Alg 1, step 2).
        damping: Added to the curvature, as a share of its largest eigenvalue. Raised automatically where the
            curvature is indefinite, which the report then says.
        tolerance: Relative residual to reach.
        iterations: Maximum number of curvature products.
        rank: Rank of the eigenbasis of ``low-rank``; for ``cg`` that of its preconditioner, 0 for none.
        seed: Seed of the random choice of tasks.
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
            raise UserError(f"Unknown curvature {self.curvature!r}.", f"Use one of {', '.join(CURVATURES)}.")
        check_fits(self.curvature, self.solver)
        if self.subsample not in SUBSAMPLES:
            raise UserError(f"Unknown subsample {self.subsample!r}.", f"Use one of {', '.join(SUBSAMPLES)}.")
        if min(self.damping, self.curvature_tasks, self.seed, self.rank) < 0:
            raise UserError("damping, curvature_tasks, rank and seed must be 0 or more.")
        if self.tolerance <= 0 or self.iterations < 1:
            raise UserError("tolerance and iterations must be above 0.")
        if self.solver == "low-rank" and self.rank < 1:
            raise UserError("The low-rank solver needs a rank above 0.", "For example, --rank 60.")
        if self.solver not in ("low-rank", "cg") and self.rank:
            raise UserError(f"The solver {self.solver} takes no rank.", "Leave it at 0.")


@dataclass(frozen=True)
class Estimator:
    """A choice of gradients and curvature that scores training data against a target.

    Attributes:
        name: One of :data:`METHODS`.
        solve: The inverse-curvature solve; None for methods without one (``dot``, ``tracin``).
        gradient: Gradient of the training tasks: ``total``, through the adaptation (Thm 4.1), or ``direct`` (eq. 2-3).
        evaluation: Gradient of the target's loss: ``total``, or ``direct``, the paper's shortened score (Def. 5.2,
            B.9).
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
            raise UserError(f"Unknown inverse {self.inner!r} of the inner Hessian.", f"Use {' or '.join(INVERSES)}.")
        for choice in (self.gradient, self.evaluation):
            if choice not in GRADIENTS:
                raise UserError(f"Unknown gradient {choice!r}.", f"Use {' or '.join(GRADIENTS)}.")

    def cache_key(self) -> dict[str, Any]:
        """Return the estimator's part of the cache key of a ranking."""
        return {"method": self.name, **asdict(self)}

    @property
    def description(self) -> str:
        """Return one line about the method."""
        return METHODS[self.name].description

    def training_model(self, model: Bilevel) -> Bilevel:
        """Return the model whose gradients and curvature the training tasks are scored with."""
        return configure_gradient(model, self.gradient, self.inner)

    def target_model(self, model: Bilevel) -> Bilevel:
        """Return the model whose gradient is that of the target's loss."""
        return configure_gradient(model, self.evaluation, self.inner)


def configure_gradient(model: Bilevel, gradient: str, inner: str = "cg") -> Bilevel:
    """Return the model with ``total`` or ``direct`` gradients, and with this inverse of the inner Hessian.

    Raises:
        UserError: EK-FAC is requested, but there is no inner Hessian to invert.
    """
    if inner != "cg":
        if not isinstance(model.adaptation, Implicit):
            raise UserError(
                "EK-FAC inverts the inner Hessian, but this model adapts by gradient steps, which have none.",
                "Leave --inner at cg, or train with --algorithm imaml.",
            )
        model = replace(model, adaptation=replace(model.adaptation, inverse=inner))
    return replace(model, first_order=True) if gradient == "direct" else model


@dataclass(frozen=True)
class Method:
    """A named estimator with its default settings and a one-line description."""

    description: str
    estimator: Estimator


def _method(name: str, description: str, **parts: Any) -> Method:
    return Method(description, Estimator(name, **parts))


METHODS: dict[str, Method] = {
    name: _method(name, description, **parts)
    for name, description, parts in (
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
            "task-IF with the empirical Fisher matrix of the tasks, solved in its dual form",
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
            "self-influence: how much removing an item raises its own loss; no target; largest first",
            {"solve": SolveSettings(solver="low-rank", rank=16, damping=0.1), "probes": 16},
        ),
    )
}
DEFAULT = "task-if"
_UNUSED_PARTS = {"tracin": ("gradient", "evaluation", "inner"), "self-influence": ("evaluation",)}
_DEFAULT_RANK = 60  # of the low-rank solver


def estimator(
    name: str, *, gradient: str = "", evaluation: str = "", probes: int = 0, inner: str = "", **solve: Any
) -> Estimator:
    """Return the estimator of a method with some parts changed.

    Args:
        solve: Fields of :class:`SolveSettings`; None or absent leaves the default of the method.

    Raises:
        UserError: the method is unknown, or parts do not fit together.
    """
    if name not in METHODS:
        raise UserError(f"Unknown method {name!r}.", f"Use one of {', '.join(METHODS)}.")
    default = METHODS[name].estimator
    changes = {key: value for key, value in solve.items() if value is not None}
    settings = default.solve
    if changes and settings is None:
        raise UserError(
            f"The method {name} has no curvature, so {next(iter(changes))!r} does not apply.", "Leave it out."
        )
    if settings is not None and changes:
        if changes.get("solver", settings.solver) != settings.solver and "rank" not in changes:
            changes["rank"] = _DEFAULT_RANK if changes["solver"] == "low-rank" else 0
        if "curvature" in changes and "solver" not in changes and settings.solver == "dual":
            changes["solver"] = "dual" if changes["curvature"] == "task-fisher" else "cg"
        settings = replace(settings, **changes)
    if probes and not default.probes:
        raise UserError(f"The method {name} takes no probes.", "Leave them out.")
    for part, value in (("gradient", gradient), ("evaluation", evaluation), ("inner", inner)):
        if part in _UNUSED_PARTS.get(name, ()) and value not in ("", getattr(default, part)):
            raise UserError(f"The method {name} does not use {part}.", "Leave it out.")
    return replace(
        default,
        solve=settings,
        gradient=gradient or default.gradient,
        evaluation=evaluation or default.evaluation,
        probes=probes or default.probes,
        inner=inner or default.inner,
    )


def parse(text: str) -> Estimator:
    """Read ``METHOD`` or ``METHOD:part=value:part=value``, for example ``task-if:damping=0.01:solver=low-rank``.

    Raises:
        UserError: the method or a part is unknown, or a value has the wrong type.
    """
    name, *parts = text.split(":")
    types = {field.name: type(getattr(SolveSettings(), field.name)) for field in fields(SolveSettings)}
    types |= dict.fromkeys(("gradient", "evaluation", "inner"), str)
    values: dict[str, Any] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in types:
            raise UserError(f"{text}: unknown part {key!r}.", f"Use one of {', '.join(types)}.")
        try:
            values[key] = types[key](value)
        except ValueError as error:
            raise UserError(f"{text}: {key} must be {types[key].__name__}, not {value!r}.", "Correct it.") from error
    return estimator(name, **values)
