"""Describe the settings of a method in words: only those that differ from its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from core.influence.methods import METHODS

_SOLVE_WORDS = {
    "curvature": "{}",
    "solver": "solver {}",
    "curvature_tasks": "{} curvature tasks",
    "subsample": "tasks by {}",
    "damping": "damping {:g}",
    "tolerance": "tolerance {:g}",
    "iterations": "at most {} iterations",
    "rank": "rank {}",
    "seed": "seed {}",
}
_OTHER_WORDS = {"gradient": "{} gradient", "evaluation": "{} evaluation", "probes": "{} probes"}


def differences(key: Mapping[str, Any]) -> list[str]:
    """Return how a ranking's cache key differs from its method: ``["exact", "damping 0.3"]``."""
    method = METHODS.get(key.get("method", ""))
    if method is None:
        return []
    defaults = asdict(method.estimator)
    solve = solve_differences(key.get("solve") or {}, defaults["solve"] or {})
    return solve + _differences(key, defaults, _OTHER_WORDS)


def solve_differences(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return how the settings of one solve differ from those of another."""
    return _differences(settings, defaults, _SOLVE_WORDS)


def _differences(given: Mapping[str, Any], defaults: Mapping[str, Any], words: dict[str, str]) -> list[str]:
    return [
        "all curvature tasks" if (key, given[key]) == ("curvature_tasks", 0) else text.format(given[key])
        for key, text in words.items()
        if key in given and given[key] != defaults.get(key)
    ]
