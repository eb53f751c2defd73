"""Plotly charts of how well the scores of a queue find injected label errors, and of how many errors remain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.review.forecast import Forecast
from core.ui.charts.edit import GRID, MEASURED, faint
from core.ui.charts.scores import HARMFUL, NEUTRAL

_PALETTE = ("#d9480f", "#0d9488", "#a37700", "#8b46c9", "#c2255c", "#4d7c0f", "#0c8599", "#7c5c3e")
_POINTS = 240
_LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
_AXIS = {"fixedrange": True, "gridcolor": GRID, "zeroline": False}


def curves_figure(curves: pd.DataFrame, candidates: Sequence[str], chosen: str, names: Mapping[str, str]) -> go.Figure:
    """Return a figure of the share of injected errors found against the share checked, one line per candidate.

    The line of the chosen candidate is bold.

    Args:
        curves: candidate, checked, found (shares) for one kind of injected errors.
        candidates: The candidates to draw.
        names: Display names of all candidates; a candidate's colour does not depend on which others are drawn.
    """
    figure = go.Figure()
    others = [name for name in names if name != chosen]
    for name in sorted(candidates, key=lambda one: one == chosen):  # the chosen candidate is drawn on top
        part = curves[curves["candidate"] == name]
        colour = MEASURED if name == chosen else _PALETTE[others.index(name) % len(_PALETTE)]
        figure.add_trace(
            go.Scatter(
                x=100 * part["checked"],
                y=100 * part["found"],
                name=names[name] + (" (ranks)" if name == chosen else ""),
                mode="lines",
                line={"color": colour, "width": 4 if name == chosen else 1.8},
                hovertemplate="%{y:.0f} % found",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[0, 100],
            y=[0, 100],
            name="chance",
            mode="lines",
            line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
        )
    )
    figure.update_layout(
        height=380,
        margin={"l": 10, "r": 10, "t": 60, "b": 10},
        hovermode="x unified",
        legend=_LEGEND,
        xaxis={"title": "items checked, %", **_AXIS, "hoverformat": ".1f"},
        yaxis={"title": "planted labels found, %", **_AXIS, "range": [0, 102]},
    )
    return figure


def so_far(known: Mapping[int, bool], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return depths and the number of items found wrong down to each, up to the deepest decided item.

    Args:
        known: Whether the label was wrong, by position in the queue of ``n`` items.
    """
    if not known:
        return np.zeros(0, int), np.zeros(0, int)
    wrong = np.zeros(n, dtype=int)
    for position, found in known.items():
        wrong[position] = found
    deepest = max(known) + 1
    return np.arange(deepest + 1), np.r_[0, np.cumsum(wrong[:deepest])]


def precision(told: Forecast) -> np.ndarray:
    """Return the expected share of label errors among the first 1 ... n items, ``(n,)``."""
    return told.found[1:] / np.arange(1, len(told.found))


def sensible_reach(told: Forecast, least: int = 0) -> int:
    """Return the depth to draw: where few errors remain, but at least ``least``."""
    n = len(told.found) - 1
    nearly = int(np.searchsorted(told.found, 0.95 * told.found[-1]))
    return min(n, max(round(1.5 * nearly), round(1.15 * least), 20))


def forecast_figure(told: Forecast, known: Mapping[int, bool], depth: int) -> go.Figure:
    """Return a figure of label errors found and remaining against the depth.

    Estimates are dotted with 90 % bands; what was found is solid.

    Args:
        known: Whether the label was found wrong, by position.
        depth: Depth marked by a line.
    """
    n = len(told.found) - 1
    reach = sensible_reach(told, max([depth, *(at + 1 for at in known)]))
    at = np.unique(np.linspace(0, reach, min(reach + 1, _POINTS)).astype(int))
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.06)
    for name, colour, middle, low, high in (
        ("found, estimate", MEASURED, told.found, told.found_low, told.found_high),
        ("left, estimate", HARMFUL, told.remaining, told.remaining_low, told.remaining_high),
    ):
        figure.add_trace(_band(at, low[at], high[at], colour), row=1, col=1)
        figure.add_trace(_estimate(at, middle[at], name, colour, np.c_[low[at], high[at]]), row=1, col=1)
    depths, found = so_far(known, n)
    if len(depths):
        few = np.unique(np.linspace(0, len(depths) - 1, min(len(depths), _POINTS)).astype(int))
        figure.add_trace(
            go.Scatter(
                x=depths[few],
                y=found[few],
                name="found so far, measured",
                mode="lines",
                line={"color": MEASURED, "width": 3.5},
                hovertemplate="%{y:,} found so far",
            ),
            row=1,
            col=1,
        )
    share = 100 * precision(told)
    figure.add_trace(
        go.Scatter(
            x=at[1:],
            y=share[at[1:] - 1],
            mode="lines",
            showlegend=False,
            line={"color": MEASURED, "width": 2, "dash": "dot"},
            hovertemplate="%{y:.0f} % of them wrong<extra></extra>",
        ),
        row=2,
        col=1,
    )
    figure.add_vline(x=depth, line_width=1.5, line_dash="dash", line_color=NEUTRAL)
    figure.update_xaxes(**_AXIS, range=[0, reach])
    figure.update_xaxes(title="items checked, from the top", row=2)
    figure.update_yaxes(**_AXIS)
    figure.update_yaxes(title="wrong labels", rangemode="tozero", row=1)
    figure.update_yaxes(title="% wrong", range=[0, 105], row=2)
    figure.update_layout(height=440, margin={"l": 10, "r": 10, "t": 40, "b": 10}, hovermode="x unified", legend=_LEGEND)
    return figure


def _band(at: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[*at, *at[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=faint(colour, 0.16),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def _estimate(at: np.ndarray, y: np.ndarray, name: str, colour: str, ends: np.ndarray) -> go.Scatter:
    return go.Scatter(
        x=at,
        y=y,
        name=name,
        mode="lines",
        line={"color": colour, "width": 2.5, "dash": "dot"},
        customdata=ends,
        hovertemplate="%{y:,.0f} [%{customdata[0]:,.0f}, %{customdata[1]:,.0f}]",
    )
