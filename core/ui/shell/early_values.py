"""Read the values of widgets that are drawn later in the run.

Streamlit checks a value when it draws the widget; until then it may be anything that a browser sends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import streamlit as st

T = TypeVar("T")


def early_option(key: str, options: Iterable[T], default: T) -> T:
    """Return the value of a widget with options; ``default`` if it has none, or one that is not among the options."""
    value = st.session_state.get(key, default)
    return value if value in list(options) else default  # in a list, as the value may have no hash


def early_page(key: str, last: int) -> int:
    """Return the value of a number input of pages, from 1 to ``last``."""
    value = st.session_state.get(key, 1)
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return min(max(int(value), 1), last) if is_number else 1
