"""Choosing a method of ranking and the parts of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import streamlit as st

from core.influence.curvature import CURVATURES
from core.influence.methods import DEFAULT, METHODS, SolveSettings, estimator
from core.influence.settings import GRADIENTS, SOLVERS, SUBSAMPLES
from core.maml.adaptation import INVERSES
from core.runtime.errors import UserError
from core.ui.shell.context import Context

SELF = "self-influence"
_TRAJECTORY = "tracin"
_OPTIONS = {"iterations": "solve-iterations"}
_RANKED = {"low-rank": 60, "cg": 0}
"""Solvers that have a rank, with the one that they begin with."""


@dataclass(frozen=True)
class Choice:
    """A method as it is chosen on a page.

    Attributes:
        args: Its options for the command line; only what differs from the default.
        fault: Why it cannot run; None if it can.
    """

    method: str
    args: list[str] = field(default_factory=list)
    fault: UserError | None = None

    @property
    def has_target(self) -> bool:
        return self.method != SELF


def choose_method(context: Context) -> Choice:
    """Draw the controls: every method by name, and below it the parts that it has."""
    method = st.selectbox(
        "Method",
        list(METHODS),
        list(METHODS).index(DEFAULT),
        format_func=_named,
        key="rank_method",
    )
    own = METHODS[method].estimator
    given: dict[str, Any] = {}
    if own.solve is not None:
        given |= _solve(method, own.solve)
    else:
        st.caption("This method has no curvature, so there is nothing to solve.")
    if method != _TRAJECTORY:
        given |= _gradients(method)
        if context.project.model.spec.algorithm == "imaml":
            given["inner"] = st.selectbox(
                "Inverse of the inner Hessian",
                INVERSES,
                key=f"rank_inner_{method}",
                help="cg solves with the exact inner Hessian; ekfac is the paper's approximation of it.",
            )
    try:
        if method == _TRAJECTORY:
            context.workspace.trajectory()
        return Choice(method, _arguments(method, given))
    except UserError as error:
        return Choice(method, fault=error)


def _named(method: str) -> str:
    words = METHODS[method].description
    return words if words.startswith(f"{method}:") else f"{method}: {words}"


def _arguments(method: str, given: dict[str, Any]) -> list[str]:
    """Options that make of the method what is ``given``.

    Raises:
        UserError: the parts do not fit together.
    """
    wanted, own = estimator(method, **given), asdict(METHODS[method].estimator)
    usual = own | (own["solve"] or {})
    changed = {key: value for key, value in given.items() if value != usual[key]}
    if estimator(method, **changed) != wanted:  # one part would draw another after it
        changed = given
    options = {_OPTIONS.get(key, key).replace("_", "-"): value for key, value in changed.items()}
    named = [] if method == DEFAULT else ["--method", method]
    return named + [part for option, value in options.items() for part in (f"--{option}", str(value))]


def _solve(method: str, own: SolveSettings) -> dict[str, Any]:
    """The inverse-curvature product; the controls begin with the method's own settings."""

    def key(part: str) -> str:
        return f"rank_{part}_{method}"

    one, two, three = st.columns(3)
    given: dict[str, Any] = {
        "curvature": one.selectbox(
            "Curvature", CURVATURES, CURVATURES.index(own.curvature), key=key("curvature"), help=_CURVATURE_HELP
        )
    }
    if method == SELF:
        solver = own.solver
        two.selectbox("Solver", [solver], disabled=True, key=key("solver"), help="Self-influence needs its basis.")
    else:
        solver = two.selectbox("Solver", SOLVERS, SOLVERS.index(own.solver), key=key("solver"), help=_SOLVER_HELP)
        given["solver"] = solver
    given["damping"] = float(
        three.number_input(
            "Damping",
            0.0,
            100.0,
            own.damping,
            step=0.001,
            format="%.4f",
            key=key("damping"),
            help="A share of the largest eigenvalue of the curvature. More is steadier and closer to plain gradients.",
        )
    )
    one, two, three = st.columns(3)
    tasks = int(
        one.number_input(
            "Tasks for the curvature", 0, 100_000, own.curvature_tasks, key=key("curvature_tasks"), help="0 means all."
        )
    )
    given["curvature_tasks"] = tasks
    drawn = two.selectbox(
        "Which tasks",
        SUBSAMPLES,
        SUBSAMPLES.index(own.subsample),
        disabled=not tasks,
        key=key("subsample"),
        help="Drawn at random, those of highest adapted loss (difficulty), or of highest entropy (uncertainty).",
    )
    given["subsample"] = drawn if tasks else own.subsample
    if solver in _RANKED:
        given["rank"] = int(
            three.number_input(
                "Rank" if solver == "low-rank" else "Rank of the preconditioner",
                1 if solver == "low-rank" else 0,
                5000,
                own.rank if solver == own.solver else _RANKED[solver],
                key=key(f"rank_{solver}"),
                help="Eigenvectors of the curvature that are kept."
                if solver == "low-rank"
                else "Eigenvectors that make the iterations fewer; 0 means none.",
            )
        )
    if solver in ("cg", "neumann"):
        one, two, _ = st.columns(3)
        given["tolerance"] = float(
            one.number_input(
                "Residual to reach", 1e-8, 1.0, own.tolerance, format="%.0e", step=1e-3, key=key("tolerance")
            )
        )
        given["iterations"] = int(
            two.number_input("Most iterations", 1, 100_000, own.iterations, key=key("iterations"))
        )
    return given


def _gradients(method: str) -> dict[str, Any]:
    """Of the training data and of the target's loss; the probes of self-influence."""
    own = METHODS[method].estimator
    one, two, _ = st.columns(3)
    given: dict[str, Any] = {
        "gradient": one.selectbox(
            "Gradient of the training data",
            GRADIENTS,
            GRADIENTS.index(own.gradient),
            key=f"rank_gradient_{method}",
            help="Total: through the adaptation. Direct: as if the adapted parameters did not move.",
        )
    }
    if method == SELF:
        probes = two.number_input(
            "Probes", 3, 1000, own.probes, key="rank_probes", help="Passes of the sketch; more make it exacter."
        )
        return given | {"probes": int(probes)}
    given["evaluation"] = two.selectbox(
        "Gradient of the target's loss",
        GRADIENTS,
        GRADIENTS.index(own.evaluation),
        key=f"rank_evaluation_{method}",
        help="Total: through the adaptation. Direct: the shortened score of the paper.",
    )
    return given


_CURVATURE_HELP = (
    "gauss-newton never is indefinite. exact is the total Hessian, raised by damping where it is indefinite. "
    "direct ignores the adaptation. task-fisher is a sum of one g g^T a task. gamma is a multiple of the identity, "
    "the paper's approximation."
)
_SOLVER_HELP = (
    "cg: conjugate gradients. neumann: the series of the literature, slower. low-rank: a few eigenvectors only, "
    "which leaves something out. dual: for task-fisher alone."
)
