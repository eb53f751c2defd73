"""Import of optional libraries, and the check of the scores that they return."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np

from core.influence.scores import check_scores
from core.runtime.errors import UserError


def require(name: str) -> ModuleType:
    """Import an optional library, or a module such as ``"cleanlab.rank"``; raise UserError if it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"The baseline needs the package {package}, which is not installed.",
            "pip install -r requirements-baselines.txt",
        ) from error


def checked_scores(scores: np.ndarray, name: str) -> np.ndarray:
    """Return the scores of the baseline ``name`` as float64; raise ScoresError if not finite or all zero."""
    scores = np.asarray(scores, dtype=np.float64)
    check_scores(scores, "Check that the model's training converged and that its loss is finite.", name)
    return scores
