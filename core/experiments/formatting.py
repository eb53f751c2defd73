"""How numbers are written in tables, findings, axes and hover texts, so that one figure reads the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

PERCENT = 100
"""From a share or an accuracy to per cent, and from a difference of accuracies to percentage points."""
MISSING = "–"


def with_spread(mean: float, spread: float, form: str = ".4f") -> str:
    """Return ``0.8820 ± 0.0123``; a sign in ``form`` applies to the mean alone."""
    return f"{mean:{form}} ± {spread:{form.lstrip('+')}}"


def mean_sd(values: Sequence[float] | pd.Series | np.ndarray, form: str = ".4f", scale: float = 1.0) -> str:
    """Return the mean and standard deviation of the finite values; the mean alone for one value, a dash for none."""
    array = np.asarray(values, dtype=float) * scale
    array = array[np.isfinite(array)]
    if not len(array):
        return MISSING
    mean = float(array.mean())
    return with_spread(mean, float(array.std(ddof=1)), form) if len(array) > 1 else f"{mean:{form}}"


def percent(share: float, digits: int = 0) -> str:
    """Return ``40 %`` for 0.4."""
    return f"{round(share * PERCENT, digits) + 0.0:.{digits}f} %"  # + 0.0 turns -0 into 0


def signed(value: float) -> str:
    """Return ``+1.2``, and never ``-0.0``."""
    return f"{round(value, 1) + 0.0:+.1f}"


def format_value(value: float, as_percent: bool) -> str:
    """Return ``12.5 %`` or ``0.125``, four significant digits; ``not known`` for NaN and infinity."""
    if not math.isfinite(value):
        return "not known"
    shown = PERCENT * value if as_percent else value
    text = f"{shown:,.0f}" if 1000 <= abs(shown) < 1000**3 else f"{shown:.4g}"
    return f"{text} %" if as_percent else text


def format_tick(value: float, as_percent: bool) -> str:
    """Return the label of a tick of an axis, with enough digits for neighbours to differ."""
    return (f"{PERCENT * value:,.6g} %" if as_percent else f"{value:,.8g}").replace("-", "−")
