"""Plotly charts of how well the scores of a queue find injected label errors, and of how many errors remain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.review.forecast import Forecast
from core.ui.charts.common import AXIS, HARMFUL, LEGEND, MEASURED, NEUTRAL, PALETTE, band

_POINTS = 240
IN_USE = " (in use)"


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
        colour = MEASURED if name == chosen else PALETTE[others.index(name) % len(PALETTE)]
        figure.add_trace(
            go.Scatter(
                x=100 * part["checked"],
                y=100 * part["found"],
                name=names[name] + (IN_USE if name == chosen else ""),
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
        legend=LEGEND,
        xaxis={"title": "items checked, %", **AXIS, "hoverformat": ".1f"},
        yaxis={"title": "injected errors found, %", **AXIS, "range": [0, 102]},
    )
    return figure


def found_so_far(known: Mapping[int, bool], n: int) -> tuple[np.ndarray, np.ndarray]:
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


def precision(expected: Forecast) -> np.ndarray:
    """Return the expected share of label errors among the first 1 ... n items, ``(n,)``."""
    return expected.found[1:] / np.arange(1, len(expected.found))


def depth_shown(expected: Forecast, minimum: int = 0) -> int:
    """Return the depth to draw: where few errors remain, but at least ``minimum``."""
    n = len(expected.found) - 1
    nearly_all = int(np.searchsorted(expected.found, 0.95 * expected.found[-1]))
    return min(n, max(round(1.5 * nearly_all), round(1.15 * minimum), 20))


def forecast_figure(expected: Forecast, known: Mapping[int, bool], depth: int) -> go.Figure:
    """Return a figure of label errors found and remaining against the depth.

    Estimates are dotted with 90 % bands; what was found is solid.

    Args:
        known: Whether the label was found wrong, by position.
        depth: Depth marked by a line.
    """
    n = len(expected.found) - 1
    deepest = depth_shown(expected, max([depth, *(at + 1 for at in known)]))
    at = np.unique(np.linspace(0, deepest, min(deepest + 1, _POINTS)).astype(int))
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.06)
    for name, colour, middle, low, high in (
        ("found, estimate", MEASURED, expected.found, expected.found_low, expected.found_high),
        ("remaining, estimate", HARMFUL, expected.remaining, expected.remaining_low, expected.remaining_high),
    ):
        figure.add_trace(band(at, low[at], high[at], colour, 0.16), row=1, col=1)
        figure.add_trace(_estimate(at, middle[at], name, colour, np.c_[low[at], high[at]]), row=1, col=1)
    depths, found = found_so_far(known, n)
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
    share = 100 * precision(expected)
    figure.add_trace(
        go.Scatter(
            x=at[1:],
            y=share[at[1:] - 1],
            mode="lines",
            showlegend=False,
            line={"color": MEASURED, "width": 2, "dash": "dot"},
            hovertemplate="%{y:.0f} % are label errors<extra></extra>",
        ),
        row=2,
        col=1,
    )
    figure.add_vline(x=depth, line_width=1.5, line_dash="dash", line_color=NEUTRAL)
    figure.update_xaxes(**AXIS, range=[0, deepest])
    figure.update_xaxes(title="items checked, from the top", row=2)
    figure.update_yaxes(**AXIS)
    figure.update_yaxes(title="label errors", rangemode="tozero", row=1)
    figure.update_yaxes(title="% label errors", range=[0, 105], row=2)
    figure.update_layout(height=440, margin={"l": 10, "r": 10, "t": 40, "b": 10}, hovermode="x unified", legend=LEGEND)
    return figure


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
