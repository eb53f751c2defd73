"""Every method that ``evidence`` can evaluate, by name, with a one-line description."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from core.influence.methods import METHODS, parse
from core.runtime.errors import UserError

_NOT_INFLUENCE = ("dot", "tracin", "self-influence")
INFLUENCE = {name: method.description for name, method in METHODS.items() if name not in _NOT_INFLUENCE}
ENSEMBLES = {
    "task-if-5": "task-IF, low-rank, averaged over 5 models trained from other seeds",
    "task-if-path": "task-IF, low-rank, averaged over the later snapshots of the training",
}
BASELINES = {
    "dot": METHODS["dot"].description,
    "tracin": METHODS["tracin"].description,
    "trak-1": "TRAK with this model alone (dattri)",
    "trak-5": "TRAK with 5 models trained from other seeds (dattri)",
    "trak-10": "TRAK with 10 models trained from other seeds (dattri)",
    "ekfac": "EK-FAC influence of a classifier of the pooled images (kronfluence)",
    "self-influence": METHODS["self-influence"].description,
    "loss": "adapted query loss: higher is more harmful; the same for every target",
    "margin": "adapted margin of the given label: lower is more harmful; the same for every target",
    "entropy": "entropy of the adapted predictions: higher is more harmful; the same for every target",
    "self-confidence": "cross-validated probability of the given labels (cleanlab); the same for every target",
}
COMBINATIONS = {"task-if+loss": "sum of task-IF and adapted loss, each in standard deviations"}
ALL_METHODS = INFLUENCE | ENSEMBLES | BASELINES | COMBINATIONS
LIBRARIES = {
    "trak-1": "dattri",
    "trak-5": "dattri",
    "trak-10": "dattri",
    "ekfac": "kronfluence",
    "self-confidence": "cleanlab",
}
"""The optional package that a method needs."""
ENSEMBLE_SIZES = {"task-if-5": 5, "trak-5": 5, "trak-10": 10}
"""Number of models, each trained from its own seed, that an ensemble method needs."""
DEFAULT_METHODS = ("task-if", "task-if-exact", "task-if-paper", "direct-if", "dot", "loss")


def missing(names: Iterable[str]) -> list[str]:
    """Return the packages that these methods need and that are not installed."""
    needed = {LIBRARIES[name] for name in names if name in LIBRARIES}
    return sorted(package for package in needed if find_spec(package) is None)


def base(name: str) -> str:
    """Return the method of ``METHOD:part=value``."""
    return name.split(":")[0]


def describe(name: str) -> str:
    """Return the description of a method, with the parts that differ from its defaults."""
    changes = name.split(":")[1:]
    return ALL_METHODS[base(name)] + (f"; {', '.join(changes)}" if changes else "")


def check_method(name: str) -> None:
    """Raise UserError if the method is unknown, or the parts named with it cannot be changed."""
    if base(name) not in ALL_METHODS:
        raise UserError(f"Unknown method {base(name)!r}.", f"Use one of {', '.join(ALL_METHODS)}.")
    if base(name) != name:
        if base(name) not in INFLUENCE:
            raise UserError(f"The method {base(name)} takes no parts.", f"These do: {', '.join(INFLUENCE)}.")
        parse(name)


def kind(name: str) -> str:
    """Return ``influence``, ``baseline`` or ``combination``."""
    name = base(name)
    return "baseline" if name in BASELINES else "combination" if name in COMBINATIONS else "influence"
