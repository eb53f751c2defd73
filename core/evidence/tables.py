"""Tables of the evidence: one row per method, and measured or predicted losses in long form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from core.evidence.lds import Score, ceiling, lds
from core.evidence.methods import describe, kind
from core.runtime.errors import UserError

CEILING = "ceiling"
_NAN = float("nan")


@dataclass(frozen=True)
class MethodScores:
    """Task scores of a method (:class:`core.influence.task_scores.TaskScores`) and what they cost.

    Attributes:
        seconds: Wall-clock time.
        memory_gb: Peak memory of the process.
        residual: NaN if there are no solves.
    """

    scores: np.ndarray
    seconds: float
    processor_seconds: float
    memory_gb: float
    residual: float
    note: str


def method_row(
    name: str, result: MethodScores, predicted: np.ndarray, measured: np.ndarray, auc: float
) -> dict[str, Any]:
    """Return the row of a method.

    Args:
        predicted, measured: Losses ``(M, T)`` of M subsets and T targets.
        auc: Area under the ROC curve for tasks with injected label noise; NaN if there are none.
    """
    return {
        **_named(name),
        **_interval("lds", lds(predicted, measured)),
        **_interval("lds_mean", lds(predicted.mean(1)[:, None], measured.mean(1)[:, None])),
        "auc": auc,
        "seconds": result.seconds,
        "memory_gb": result.memory_gb,
        "residual": result.residual,
        "note": result.note,
    }


def failed_row(name: str, error: UserError) -> dict[str, Any]:
    """Return the row of a method that could not run: the reason and no figures."""
    return {**_named(name), **_no_figures(), "note": str(error)}


def ceiling_row(measured: np.ndarray, seconds: float) -> dict[str, Any]:
    """Return the row of the ceiling that noise between retrainings sets (:func:`core.evidence.lds.ceiling`).

    Args:
        measured: Losses ``(M, R, T)`` of M subsets, R seeds and T targets.
        seconds: Seconds of all retrainings.
    """
    per_target = ceiling(measured)
    return {
        "method": CEILING,
        "words": "agreement of independent retrainings on the same subsets",
        "kind": CEILING,
        **_no_figures(),
        **_interval("lds", per_target),
        **_interval("lds_mean", ceiling(measured.mean(2)[..., None])),
        "seconds": seconds,
        "note": "" if per_target else "unknown with one seed only",
    }


def long_table(values: np.ndarray, axes: tuple[str, ...], name: str, targets: list[str]) -> pd.DataFrame:
    """Return an array as a table with one row per cell; the last axis is that of the targets."""
    index = np.indices(values.shape).reshape(values.ndim, -1)
    table = pd.DataFrame(dict(zip(axes, index, strict=True)))
    return table.assign(target=np.array(targets, dtype=object)[index[-1]], **{name: values.reshape(-1)})


def _named(name: str) -> dict[str, str]:
    return {"method": name, "words": describe(name), "kind": kind(name)}


def _no_figures() -> dict[str, float]:
    figures = dict.fromkeys(("auc", "seconds", "memory_gb", "residual"), _NAN)
    return _interval("lds", None) | _interval("lds_mean", None) | figures


def _interval(name: str, score: Score | None) -> dict[str, float]:
    mean, low, high = (score.mean, score.low, score.high) if score else (_NAN, _NAN, _NAN)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
