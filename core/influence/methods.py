"""The ranking methods by name: which gradient, which curvature, which solver, which score.

A method is a set of defaults; each part can be changed, as long as the parts fit together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from core.influence.settings import SELF_INFLUENCE, Estimator, SolveSettings
from core.runtime.errors import UserError
from core.runtime.settings import check_names


@dataclass(frozen=True)
class Method:
    """A named estimator with its default settings and a one-line description."""

    description: str
    estimator: Estimator


METHODS: dict[str, Method] = {
    name: Method(description, Estimator(name, **parts))
    for name, description, parts in (
        ("task-if", "task-IF and instance-IF with the Gauss-Newton curvature", {"solve": SolveSettings()}),
        (
            "task-if-exact",
            "task-IF and instance-IF with the exact total Hessian, made positive definite by damping",
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
            SELF_INFLUENCE,
            "self-influence: how much removing an item raises its own loss; no target; largest first",
            {"solve": SolveSettings(solver="low-rank", rank=16, damping=0.1), "probes": 16},
        ),
    )
}
DEFAULT = "task-if"
_UNUSED_PARTS = {"tracin": ("gradient", "evaluation", "inner"), SELF_INFLUENCE: ("evaluation",)}
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
    names = [field.name for field in fields(SolveSettings)]
    check_names(solve, ["gradient", "evaluation", "probes", "inner", *names])
    default = METHODS[name].estimator
    changes = {key: value for key, value in solve.items() if value is not None}
    settings = default.solve
    if changes and settings is None:
        raise UserError(f"The method {name} has no curvature, so {next(iter(changes))!r} does not apply.", "Omit it.")
    if settings is not None and changes:
        if changes.get("solver", settings.solver) != settings.solver and "rank" not in changes:
            changes["rank"] = _DEFAULT_RANK if changes["solver"] == "low-rank" else 0
        if "curvature" in changes and "solver" not in changes and settings.solver == "dual":
            changes["solver"] = "dual" if changes["curvature"] == "task-fisher" else "cg"
        settings = replace(settings, **changes)
    if probes and not default.probes:
        raise UserError(f"The method {name} does not use probes.", "Omit them.")
    for part, value in (("gradient", gradient), ("evaluation", evaluation), ("inner", inner)):
        if part in _UNUSED_PARTS.get(name, ()) and value not in ("", getattr(default, part)):
            raise UserError(f"The method {name} does not use {part}.", "Omit it.")
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
