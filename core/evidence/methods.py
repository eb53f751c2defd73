"""Every method that ``evidence`` can rate, by name, with a line on what it is."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from core.influence.methods import METHODS, parse
from core.runtime.errors import UserError

INFLUENCE = {name: method.words for name, method in METHODS.items() if name not in ("dot", "tracin", "self-influence")}
ENSEMBLES = {
    "task-if-5": "task-IF, low-rank, averaged over 5 models trained from other seeds",
    "task-if-path": "task-IF, low-rank, averaged over the later snapshots of the training",
}
BASELINES = {
    "dot": METHODS["dot"].words,
    "tracin": METHODS["tracin"].words,
    "trak-1": "TRAK with the model itself (dattri)",
    "trak-5": "TRAK with 5 models trained from other seeds (dattri)",
    "trak-10": "TRAK with 10 models trained from other seeds (dattri)",
    "ekfac": "EK-FAC influence of a classifier of the pooled images (kronfluence)",
    "self-influence": METHODS["self-influence"].words,
    "loss": "adapted query loss: the higher, the more harmful; the same for every target",
    "margin": "adapted margin: the lower, the more harmful; the same for every target",
    "entropy": "entropy of the adapted predictions; the same for every target",
    "self-confidence": "cross-validated probability of the given labels (cleanlab); the same for every target",
}
COMBINATIONS = {
    "task-if+loss": "task-IF and adapted loss, each in standard deviations, added up",
}
ALL_METHODS = INFLUENCE | ENSEMBLES | BASELINES | COMBINATIONS
LIBRARIES = {
    "trak-1": "dattri",
    "trak-5": "dattri",
    "trak-10": "dattri",
    "ekfac": "kronfluence",
    "self-confidence": "cleanlab",
}
"""The package that a method needs beside the ordinary install."""
ENSEMBLE_SIZES = {"task-if-5": 5, "trak-5": 5, "trak-10": 10}
"""Number of models, each trained from its own seed, that an ensemble method needs."""
DEFAULT_METHODS = ("task-if", "task-if-exact", "task-if-paper", "direct-if", "dot", "loss")


def missing(names: Iterable[str]) -> list[str]:
    """The packages that these methods need and that are not installed."""
    needed = {LIBRARIES[name] for name in names if name in LIBRARIES}
    return sorted(package for package in needed if find_spec(package) is None)


def base(name: str) -> str:
    """The method that ``METHOD:part=value`` varies; the name itself where it varies nothing."""
    return name.split(":")[0]


def words(name: str) -> str:
    """What a method is, and what of it is chosen otherwise."""
    chosen = name.split(":")[1:]
    return ALL_METHODS[base(name)] + (f"; {', '.join(chosen)}" if chosen else "")


def check(name: str) -> None:
    """Raise UserError if there is no such method, or it cannot be varied so."""
    if base(name) not in ALL_METHODS:
        raise UserError(f"There is no method {base(name)!r}.", f"Known: {', '.join(ALL_METHODS)}.")
    if base(name) != name:
        if base(name) not in INFLUENCE:
            raise UserError(f"{base(name)} has no parts to choose.", f"These have: {', '.join(INFLUENCE)}.")
        parse(name)


def kind(name: str) -> str:
    """``influence``, ``baseline`` or ``combination``."""
    name = base(name)
    return "baseline" if name in BASELINES else "combination" if name in COMBINATIONS else "influence"
