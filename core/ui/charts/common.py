"""Colours, axes and traces that the Plotly charts of all pages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from core.experiments.style import GREY, HARMS, HELPS

HARMFUL, HELPFUL, NEUTRAL = HARMS, HELPS, GREY
MEASURED, LOSS = "#1d63d8", "#7c3aed"
PALETTE = ("#d9480f", "#0d9488", "#a37700", "#8b46c9", "#c2255c", "#4d7c0f", "#0c8599", "#7c5c3e")
"""Colours of candidates and classes; MEASURED and NEUTRAL are distinguishable from them."""
GRID = "rgba(127, 127, 127, 0.25)"
CONFIG = {"displayModeBar": False}
AXIS = {"fixedrange": True, "showgrid": True, "gridcolor": GRID, "zeroline": False}
LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}


def literal(text: str) -> str:
    """Return a string from data or users so that Plotly shows it as it is; it interprets some HTML in every text."""
    return escape(text, quote=False)


def faint(colour: str, alpha: float) -> str:
    """Return the colour with the given opacity, as ``rgba(...)``."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"


def line(x: Any, y: Any, colour: str, width: float, dash: str | None = None, **options: Any) -> go.Scatter:
    """Return a line through points."""
    return go.Scatter(x=x, y=y, mode="lines", line={"color": colour, "width": width, "dash": dash}, **options)


def band(
    x: Iterable[float], low: Iterable[float], high: Iterable[float], colour: str, alpha: float, **options: Any
) -> go.Scatter:
    """Return the area between two lines."""
    return go.Scatter(
        x=[*x, *list(x)[::-1]],
        y=[*high, *list(low)[::-1]],
        fill="toself",
        fillcolor=faint(colour, alpha),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        **options,
    )


def error_bars(above: Iterable[float], below: Iterable[float], **options: Any) -> dict[str, Any]:
    """Return Plotly's ``error_x`` or ``error_y``; the lengths are measured from the value."""
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "width": 0, **options}


def categories(labels: Sequence[str]) -> dict[str, Any]:
    """Return the options of a y-axis that lists labels from top to bottom."""
    return {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": labels,
        "range": [len(labels) - 0.4, -0.6],
        "autorange": False,
        "fixedrange": True,
        "showgrid": False,
        "ticklabelstandoff": 8,
    }
