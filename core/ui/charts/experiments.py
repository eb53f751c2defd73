"""Plotly charts of an experiment's plots, in the style in which :mod:`core.experiments.drawing` draws them on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from core.experiments.formatting import format_value
from core.experiments.results import Plot, Series
from core.experiments.style import (
    BAND_OPACITY,
    ERROR_BAR_WIDTH,
    MARKERS_PER_LINE,
    SeriesStyle,
    check_plot,
    error_lengths,
    has_legend,
    interval_bounds,
    is_horizontal,
    is_log,
    label_limits,
    legend_label,
    mark_kind,
    plot_height,
    positions,
    series_styles,
    tick_label,
    tick_labels,
    wrapped_labels,
)
from core.ui.charts.common import AXIS, LEGEND, band, error_bars

_PLOT_PX, _FRAME_PX, _LABEL_PX, _MARK_PX = 320, 110, 22, 8


def plot_figure(plot: Plot) -> go.Figure:
    """Return the plot for the browser; hovering shows every value.

    Raises:
        UserError: the plot cannot be drawn.
    """
    check_plot(plot)
    figure = go.Figure()
    for number, style in enumerate(series_styles(plot.series)):
        kind = mark_kind(plot, plot.series[number])
        if kind == "lines" and interval_bounds(plot.series[number]) is not None:
            figure.add_trace(_band(plot, number, style))
        figure.add_trace((_line if kind == "lines" else _dots)(plot, number, style))
    value_axis = {"title": _text(plot.y_label), "ticksuffix": " %" if plot.percent_y else "", **_AXIS}
    figure.update_layout(
        height=_FRAME_PX + plot_height(plot, _PLOT_PX, _LABEL_PX, _MARK_PX),
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        hovermode="closest",
        showlegend=has_legend(plot),
        legend=LEGEND,
        **dict(zip(_axes(plot), (_label_axis(plot), value_axis), strict=True)),
    )
    return figure


def _axes(plot: Plot) -> tuple[str, str]:
    """Return the names of the axis of ``x`` and the axis of values."""
    return ("yaxis", "xaxis") if is_horizontal(plot) else ("xaxis", "yaxis")


_AXIS = AXIS | {"separatethousands": True, "exponentformat": "power", "minexponent": 5}


def _text(text: str) -> str:
    """Escape text, as Plotly interprets some HTML in every text."""
    return escape(text, quote=False)


def _label_axis(plot: Plot) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": _text(plot.x_label), **_AXIS}
    if labels := [_text(label).replace("\n", "<br>") for label in wrapped_labels(plot)]:
        ticks = {"tickvals": list(range(len(labels))), "ticktext": labels, "showgrid": False, "ticklabelstandoff": 6}
        return axis | ticks | {"range": label_limits(plot)}
    if is_log(plot):
        return axis | {"type": "log"} | _log_ticks(plot)
    return axis | {"ticksuffix": " %" if plot.percent_x else ""}


def _log_ticks(plot: Plot) -> dict[str, Any]:
    """Return ticks with plain numbers, which Plotly would write as powers, or as single digits between two powers."""
    scale = 100 if plot.percent_x else 1
    across = [scale * float(x) for series in plot.series for x in series.x]
    found = [x for x in across if math.isfinite(x)] or [1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    steps = (1,) if high - low > 3 else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    return {"tickvals": ticks, "ticktext": [format_value(tick / scale, plot.percent_x) for tick in ticks]}


def _line(plot: Plot, number: int, style: SeriesStyle) -> go.Scatter:
    series = plot.series[number]
    return go.Scatter(
        **_values(plot, number),
        mode="lines+markers",
        line={"color": style.colour, "width": style.width, "dash": style.dash},
        marker={**_marker(series, style, 8), "maxdisplayed": 2 * MARKERS_PER_LINE},
    )


def _band(plot: Plot, number: int, style: SeriesStyle) -> go.Scatter:
    """Return the area from low to high, where both are finite."""
    low, high = interval_bounds(plot.series[number]) or ([], [])
    scale = 100 if plot.percent_y else 1
    finite = [
        (at, scale * a, scale * b)
        for at, a, b in zip(_coordinates(plot, number), low, high, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    ]
    x, lower, upper = ([corner[side] for corner in finite] for side in range(3))
    return band(x, lower, upper, style.colour, BAND_OPACITY, legendgroup=str(number))


def _dots(plot: Plot, number: int, style: SeriesStyle) -> go.Scatter:
    series = plot.series[number]
    return go.Scatter(
        **_values(plot, number),
        mode="markers",
        marker=_marker(series, style, 11),
        **_error_bars(plot, series, style.colour, ERROR_BAR_WIDTH),
    )


def _marker(series: Series, style: SeriesStyle, size: int) -> dict[str, Any]:
    """Return Plotly's options of a marker, hollow for estimates."""
    hollow = {"symbol": f"{style.symbol}-open", "line": {"width": 2.2, "color": style.colour}}
    return {"color": style.colour, "size": size, "symbol": style.symbol, **(hollow if series.estimate else {})}


def _error_bars(plot: Plot, series: Series, colour: str, thickness: float) -> dict[str, Any]:
    if (lengths := error_lengths(series)) is None:
        return {}
    scale = 100 if plot.percent_y else 1
    below, above = ([scale * one for one in side] for side in lengths)
    return {f"error_{_axes(plot)[1][0]}": error_bars(above, below, color=colour, thickness=thickness, width=4)}


def _coordinates(plot: Plot, number: int) -> list[float]:
    scale = 100 if plot.percent_x and not tick_labels(plot) else 1
    return [scale * x for x in positions(plot, number)]


def _values(plot: Plot, number: int) -> dict[str, Any]:
    series, scale = plot.series[number], 100 if plot.percent_y else 1
    kind = "estimate" if series.estimate else "for comparison" if series.reference else "measured"
    bounds, texts, axis = interval_bounds(series), [], f"{plot.x_label}: " if plot.x_label else ""
    across: Sequence[float | str] = series.x
    for at, (x, y) in enumerate(zip(across, series.y, strict=True)):
        value = format_value(y, plot.percent_y)
        if bounds is not None and all(math.isfinite(side[at]) for side in bounds):
            value += f" [{', '.join(format_value(side[at], plot.percent_y) for side in bounds)}]"
        texts.append([_text(line) for line in (series.name, f"{axis}{tick_label(plot, x)}", f"{value}, {kind}")])
    values = (_coordinates(plot, number), [scale * y for y in series.y])
    return {
        **{name[0]: each for name, each in zip(_axes(plot), values, strict=True)},
        "name": _text(legend_label(series)),
        "legendgroup": str(number),
        "customdata": texts,
        "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    }
