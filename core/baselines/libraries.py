"""The doors through which optional libraries come in and scores go out."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np

from core.runtime.errors import UserError


def require(name: str) -> ModuleType:
    """Import an optional library, or a module of it such as ``"cleanlab.rank"``.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"The baseline needs the package {package}, which is not installed.",
            "pip install -r requirements-baselines.txt",
        ) from error


def checked(scores: np.ndarray, name: str) -> np.ndarray:
    """The scores as float64, if they can rank anything.

    Args:
        name: What the error calls the baseline.

    Raises:
        UserError: a score is not finite, or all are zero.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all() or not scores.any():
        what = "all zero" if np.isfinite(scores).all() else "not finite"
        raise UserError(
            f"The {name} scores are {what}; they would rank nothing.",
            "Check that the model's training converged and that its loss is finite.",
        )
    return scores
