"""Plotly charts of an experiment's plots, which :mod:`core.experiments.drawing` draws on disk in the same look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from core.experiments.appearance import (
    GREY,
    MARKED,
    Look,
    bar_width,
    check,
    ends,
    has_legend,
    is_log,
    label,
    lies,
    looks,
    place,
    places,
    positions,
    whiskers,
    wrapped,
    written,
)
from core.experiments.results import Plot, Series
from core.ui.charts.edit import GRID, faint

_PLOT_PX, _FRAME_PX, _WORD_PX, _MARK_PX = 320, 110, 22, 8


def plot_figure(plot: Plot) -> go.Figure:
    """The plot for the browser; every value is told on hover.

    Raises:
        UserError: the plot cannot be drawn.
    """
    check(plot)
    figure = go.Figure()
    draw = {"lines": _line, "dots": _dots, "bars": _bars}[plot.kind]
    for number, look in enumerate(looks(plot.series)):
        series = plot.series[number]
        if plot.kind == "lines" and len(series.x) > 1 and ends(series) is not None:
            figure.add_trace(_band(plot, number, look))
        figure.add_trace(draw(plot, number, look))
    values_axis = {"title": _text(plot.y_label), "ticksuffix": " %" if plot.percent_y else "", **_AXIS}
    words = len(places(plot)) if lies(plot) else 0
    figure.update_layout(
        height=_FRAME_PX + (words * (_WORD_PX + _MARK_PX * len(plot.series)) or _PLOT_PX),
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        hovermode="closest",
        showlegend=has_legend(plot),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        barmode="overlay",  # each bar has its place
        **dict(zip(_axes(plot), (_places_axis(plot), values_axis), strict=True)),
    )
    return figure


def _axes(plot: Plot) -> tuple[str, str]:
    """Which axis has the places, and which the values."""
    return ("yaxis", "xaxis") if lies(plot) else ("xaxis", "yaxis")


_AXIS = {
    "fixedrange": True,
    "showgrid": True,
    "gridcolor": GRID,
    "zeroline": False,
    "separatethousands": True,
    "exponentformat": "power",
    "minexponent": 5,
}


def _text(text: str) -> str:
    """As it is: Plotly takes some HTML in every text."""
    return escape(text, quote=False)


def _places_axis(plot: Plot) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": _text(plot.x_label), **_AXIS}
    if words := [_text(word).replace("\n", "<br>") for word in wrapped(plot)]:
        reach = [-0.6, len(words) - 0.4]
        ticks = {"tickvals": list(range(len(words))), "ticktext": words, "showgrid": False, "ticklabelstandoff": 6}
        return axis | ticks | {"range": reach[::-1] if lies(plot) else reach}
    if is_log(plot):
        return axis | {"type": "log"} | _log_ticks(plot)
    return axis | {"ticksuffix": " %" if plot.percent_x else ""}


def _log_ticks(plot: Plot) -> dict[str, Any]:
    """Whole figures, which Plotly would write as powers, or as single digits between two powers."""
    scale = 100 if plot.percent_x else 1
    across = [scale * float(x) for series in plot.series for x in series.x]
    found = [x for x in across if math.isfinite(x)] or [1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    steps = (1,) if high - low > 3 else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    return {"tickvals": ticks, "ticktext": [written(tick / scale, plot.percent_x) for tick in ticks]}


def _line(plot: Plot, number: int, look: Look) -> go.Scatter:
    series = plot.series[number]
    if len(series.x) == 1:  # a band would have no width
        return _dots(plot, number, look)
    return go.Scatter(
        **_told(plot, number),
        mode="lines+markers",
        line={"color": look.colour, "width": 1.8 if series.reference else 2.5, "dash": look.dash},
        marker={**_marker(series, look, 8), "maxdisplayed": 2 * MARKED},
    )


def _band(plot: Plot, number: int, look: Look) -> go.Scatter:
    """From low to high, where both are known."""
    low, high = ends(plot.series[number]) or ([], [])
    scale = 100 if plot.percent_y else 1
    whole = [
        (x, scale * a, scale * b)
        for x, a, b in zip(_across(plot, number), low, high, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    ]
    return go.Scatter(
        x=[x for x, _, _ in whole] + [x for x, _, _ in reversed(whole)],
        y=[b for _, _, b in whole] + [a for _, a, _ in reversed(whole)],
        fill="toself",
        fillcolor=faint(look.colour, 0.16),
        line={"width": 0},
        mode="lines",
        legendgroup=str(number),
        hoverinfo="skip",
        showlegend=False,
    )


def _dots(plot: Plot, number: int, look: Look) -> go.Scatter:
    series = plot.series[number]
    return go.Scatter(
        **_told(plot, number),
        mode="markers",
        marker=_marker(series, look, 11),
        **_whiskers(plot, series, look.colour, 2.2),
    )


def _bars(plot: Plot, number: int, look: Look) -> go.Bar:
    series = plot.series[number]
    pattern = {"shape": "/", "fgcolor": look.colour, "bgcolor": "rgba(0, 0, 0, 0)", "size": 8}
    return go.Bar(
        **_told(plot, number),
        width=bar_width(plot),
        orientation="h" if lies(plot) else "v",
        marker={
            "color": faint(GREY, 0.45) if series.reference else look.colour,
            "line": {"color": look.colour, "width": 2},
            **({"pattern": pattern} if series.estimate else {}),
        },
        **_whiskers(plot, series, GREY if series.reference else "#7f8793", 2.0),
    )


def _marker(series: Series, look: Look, size: int) -> dict[str, Any]:
    """Hollow where the values are estimates."""
    hollow = {"symbol": f"{look.symbol}-open", "line": {"width": 2.2, "color": look.colour}}
    return {"color": look.colour, "size": size, "symbol": look.symbol, **(hollow if series.estimate else {})}


def _whiskers(plot: Plot, series: Series, colour: str, thickness: float) -> dict[str, Any]:
    if (found := whiskers(series)) is None:
        return {}
    scale = 100 if plot.percent_y else 1
    below, above = ([scale * one for one in side] for side in found)
    options = {"color": colour, "thickness": thickness, "width": 4}
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **options}
    return {f"error_{_axes(plot)[1][0]}": bars}


def _across(plot: Plot, number: int) -> list[float]:
    scale = 100 if plot.percent_x and not places(plot) else 1
    return [scale * x for x in positions(plot, number)]


def _told(plot: Plot, number: int) -> dict[str, Any]:
    """Values, name and hover texts of a series."""
    series, scale = plot.series[number], 100 if plot.percent_y else 1
    kind = "estimate" if series.estimate else "for comparison" if series.reference else "measured"
    found, texts, axis = ends(series), [], f"{plot.x_label}: " if plot.x_label else ""
    across: Sequence[float | str] = series.x
    for at, (x, y) in enumerate(zip(across, series.y, strict=True)):
        value = written(y, plot.percent_y)
        if found is not None and all(math.isfinite(side[at]) for side in found):
            value += f" [{', '.join(written(side[at], plot.percent_y) for side in found)}]"
        texts.append([_text(line) for line in (series.name, f"{axis}{place(plot, x)}", f"{value}, {kind}")])
    values = (_across(plot, number), [scale * y for y in series.y])
    return {
        **{name[0]: each for name, each in zip(_axes(plot), values, strict=True)},
        "name": _text(label(series)),
        "legendgroup": str(number),
        "customdata": texts,
        "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    }
