"""Draw the controls for a ranking method and its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import streamlit as st

from core.influence.methods import DEFAULT, METHODS, estimator
from core.influence.settings import SELF_INFLUENCE, Estimator, SolveSettings
from core.runtime.errors import UserError
from core.runtime.settings import arguments, declared
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.context import Context

_TRAJECTORY = "tracin"
MIN_PROBES = 3
"""Minimum number of passes of the sketch; with fewer its error cannot be estimated."""
_DEFAULT_RANKS = {"low-rank": 60, "cg": 0}
"""Default rank of each solver that has one."""


def choose_method(context: Context) -> tuple[str, list[str], UserError | None]:
    """Draw the controls: every method by name, followed by its parts.

    Returns:
        The method, its options for the command line that differ from the defaults, and why it cannot run, if so.
    """
    method = widgets.select(st, Estimator, "name", key="rank_method", format_func=_label)
    chosen: dict[str, Any] = {}
    if (solve := METHODS[method].estimator.solve) is not None:
        chosen |= _solve(method, solve)
    else:
        st.caption("This method uses no curvature, so there is nothing to solve.")
    if method != _TRAJECTORY:
        chosen |= _gradients(method)
        if context.project.model.spec.algorithm == "imaml":
            chosen["inner"] = widgets.select(st, Estimator, "inner", key=f"rank_inner_{method}")
    try:
        if method == _TRAJECTORY:
            context.workspace.trajectory()
        return method, _arguments(method, chosen), None
    except UserError as error:
        return method, [], error


def _label(method: str) -> str:
    description = METHODS[method].description
    return description if description.startswith(f"{method}:") else f"{method}: {description}"


def _arguments(method: str, chosen: dict[str, Any]) -> list[str]:
    """Return the options that set the method to the values in ``chosen``.

    Raises:
        UserError: the parts are incompatible.
    """
    wanted, defaults = estimator(method, **chosen), asdict(METHODS[method].estimator)
    defaults = defaults | (defaults["solve"] or {})
    changed = {key: value for key, value in chosen.items() if value != defaults[key]}
    if estimator(method, **changed) != wanted:  # changing one part would change another
        changed = chosen
    args = [] if method == DEFAULT else ["--method", method]
    for cls in (SolveSettings, Estimator):
        args += arguments(cls, {key: value for key, value in changed.items() if key in declared(cls)}, always=changed)
    return args


def _solve(method: str, defaults: SolveSettings) -> dict[str, Any]:
    """Draw the controls of the inverse-curvature product and return their values."""

    def draw(widget: Callable[..., Any], place: Any, field: str, **options: Any) -> Any:
        given = {"key": f"rank_{field}_{method}", "value": getattr(defaults, field)} | options
        return widget(place, SolveSettings, field, **given)

    number, select = (partial(draw, widget) for widget in (widgets.number, widgets.select))
    one, two, three = st.columns(3)
    chosen: dict[str, Any] = {"curvature": select(one, "curvature")}
    if method == SELF_INFLUENCE:
        why = "Self-influence needs the basis of this solver."
        solver = select(two, "solver", choices=[defaults.solver], disabled=True, help=why)
    else:
        solver = chosen["solver"] = select(two, "solver")
    chosen["damping"] = number(three, "damping", step=0.001, format="%.4f")
    one, two, three = st.columns(3)
    tasks = chosen["curvature_tasks"] = number(one, "curvature_tasks")
    subsample = select(two, "subsample", disabled=not tasks)
    chosen["subsample"] = subsample if tasks else defaults.subsample
    if solver in _DEFAULT_RANKS:
        chosen["rank"] = number(
            three,
            "rank",
            label="Rank" if solver == "low-rank" else "Rank of the preconditioner",
            minimum=1 if solver == "low-rank" else 0,
            value=defaults.rank if solver == defaults.solver else _DEFAULT_RANKS[solver],
            key=f"rank_rank_{solver}_{method}",
        )
    if solver in ("cg", "neumann"):
        one, two, _ = st.columns(3)
        chosen["tolerance"] = number(one, "tolerance", format="%.0e", step=1e-3)
        chosen["iterations"] = number(two, "iterations")
    return chosen


def _gradients(method: str) -> dict[str, Any]:
    """Draw the controls of the gradients, and of the probes of self-influence, and return their values."""
    defaults = METHODS[method].estimator
    one, two, _ = st.columns(3)

    def select(place: Any, field: str) -> Any:
        return widgets.select(place, Estimator, field, key=f"rank_{field}_{method}", value=getattr(defaults, field))

    chosen = {"gradient": select(one, "gradient")}
    if method == SELF_INFLUENCE:
        chosen["probes"] = widgets.number(
            two, Estimator, "probes", key="rank_probes", value=defaults.probes, minimum=MIN_PROBES
        )
    else:
        chosen["evaluation"] = select(two, "evaluation")
    return chosen
