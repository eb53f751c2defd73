"""Plotly charts of how well the scores of a queue find injected label errors, and of how many errors remain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.review.forecast import Forecast
from core.ui.charts.common import AXIS, HARMFUL, LEGEND, MEASURED, NEUTRAL, PALETTE, band, line, literal

_POINTS = 240
IN_USE = " (in use)"


def curves_figure(curves: pd.DataFrame, candidates: Sequence[str], chosen: str, names: Mapping[str, str]) -> go.Figure:
    """Return a figure of the share of injected errors found against the share checked, the chosen candidate in bold.

    Args:
        curves: candidate, checked, found (shares) for one kind of injected errors.
        names: Display names of all candidates; a candidate's colour does not depend on which others are drawn.
    """
    figure = go.Figure()
    others = [name for name in names if name != chosen]
    for name in sorted(candidates, key=lambda one: one == chosen):  # the chosen candidate is drawn on top
        part = curves[curves["candidate"] == name]
        colour = MEASURED if name == chosen else PALETTE[others.index(name) % len(PALETTE)]
        label, width = (names[name] + IN_USE, 4) if name == chosen else (names[name], 1.8)
        label = literal(label)
        percent = 100 * part[["checked", "found"]]
        figure.add_trace(
            line(percent["checked"], percent["found"], colour, width, name=label, hovertemplate="%{y:.0f} % found")
        )
    figure.add_trace(line([0, 100], [0, 100], NEUTRAL, 1.5, "dot", name="chance", hoverinfo="skip"))
    figure.update_layout(
        height=380,
        margin={"l": 10, "r": 10, "t": 60, "b": 10},
        hovermode="x unified",
        legend=LEGEND,
        xaxis={"title": "items checked, %", **AXIS, "hoverformat": ".1f"},
        yaxis={"title": "injected errors found, %", **AXIS, "range": [0, 102]},
    )
    return figure


def found_so_far(known: Mapping[int, bool]) -> np.ndarray:
    """Return the number of items found wrong among the first 0, 1, ... items, down to the deepest decided one.

    ``known`` is whether the label was wrong, by position in the queue.
    """
    wrong = np.zeros(max(known, default=-1) + 1, dtype=int)
    wrong[list(known)] = list(known.values())
    return np.r_[0, np.cumsum(wrong)]


def precision(expected: Forecast) -> np.ndarray:
    """Return the expected share of label errors among the first 1 ... n items, ``(n,)``."""
    return expected.found[1:] / np.arange(1, len(expected.found))


def depth_shown(expected: Forecast, minimum: int = 0) -> int:
    """Return the depth to draw: where few errors remain, but at least ``minimum``."""
    n = len(expected.found) - 1
    nearly_all = int(np.searchsorted(expected.found, 0.95 * expected.found[-1]))
    return min(n, max(round(1.5 * nearly_all), round(1.15 * minimum), 20))


def forecast_figure(expected: Forecast, known: Mapping[int, bool], depth: int) -> go.Figure:
    """Return a figure of label errors found and remaining against the depth, of which ``depth`` is marked.

    Estimates are dotted with 90 % bands; what was found is solid.
    """
    deepest = depth_shown(expected, max([depth, *(at + 1 for at in known)]))
    at = np.unique(np.linspace(0, deepest, min(deepest + 1, _POINTS)).astype(int))
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.06)
    for name, colour, middle, low, high in (
        ("found, estimate", MEASURED, expected.found, expected.found_low, expected.found_high),
        ("remaining, estimate", HARMFUL, expected.remaining, expected.remaining_low, expected.remaining_high),
    ):
        figure.add_trace(band(at, low[at], high[at], colour, 0.16), row=1, col=1)
        estimate = line(
            at,
            middle[at],
            colour,
            2.5,
            "dot",
            name=name,
            customdata=np.c_[low[at], high[at]],
            hovertemplate="%{y:,.0f} [%{customdata[0]:,.0f}, %{customdata[1]:,.0f}]",
        )
        figure.add_trace(estimate, row=1, col=1)
    if known:
        found = found_so_far(known)
        few = np.unique(np.linspace(0, len(found) - 1, min(len(found), _POINTS)).astype(int))
        measured = line(
            few, found[few], MEASURED, 3.5, name="found so far, measured", hovertemplate="%{y:,} found so far"
        )
        figure.add_trace(measured, row=1, col=1)
    share = (100 * precision(expected))[at[1:] - 1]
    hover = "%{y:.0f} % are label errors<extra></extra>"
    figure.add_trace(line(at[1:], share, MEASURED, 2, "dot", showlegend=False, hovertemplate=hover), row=2, col=1)
    figure.add_vline(x=depth, line_width=1.5, line_dash="dash", line_color=NEUTRAL)
    figure.update_xaxes(**AXIS, range=[0, deepest])
    figure.update_xaxes(title="items checked, from the top", row=2)
    figure.update_yaxes(**AXIS)
    figure.update_yaxes(title="label errors", rangemode="tozero", row=1)
    figure.update_yaxes(title="% label errors", range=[0, 105], row=2)
    figure.update_layout(height=440, margin={"l": 10, "r": 10, "t": 40, "b": 10}, hovermode="x unified", legend=LEGEND)
    return figure
