"""Plotly charts of an experiment's plots, in the style in which :mod:`core.experiments.drawing` draws them on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from core.experiments import style
from core.experiments.formatting import format_value
from core.experiments.results import Plot, Series
from core.ui.charts.common import AXIS, LEGEND, band, error_bars, literal

_PLOT_PX, _FRAME_PX, _LABEL_PX, _MARK_PX = 320, 110, 22, 8


def plot_figure(plot: Plot) -> go.Figure:
    """Return the plot for the browser; hovering shows every value.

    Raises:
        UserError: the plot cannot be drawn.
    """
    style.check_plot(plot)
    figure = go.Figure()
    for number, series_style in enumerate(style.series_styles(plot.series)):
        _draw(figure, plot, number, series_style)
    value_axis = {"title": literal(plot.y_label), "ticksuffix": " %" if plot.percent_y else "", **_AXIS}
    figure.update_layout(
        height=_FRAME_PX + style.plot_height(plot, _PLOT_PX, _LABEL_PX, _MARK_PX),
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        hovermode="closest",
        showlegend=style.has_legend(plot),
        legend=LEGEND,
        **dict(zip(_axes(plot), (_label_axis(plot), value_axis), strict=True)),
    )
    return figure


def _axes(plot: Plot) -> tuple[str, str]:
    """Return the names of the axes of ``x`` and of the values."""
    return ("yaxis", "xaxis") if style.is_horizontal(plot) else ("xaxis", "yaxis")


_AXIS = AXIS | {"separatethousands": True, "exponentformat": "power", "minexponent": 5}


def _label_axis(plot: Plot) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": literal(plot.x_label), **_AXIS}
    if labels := [literal(label).replace("\n", "<br>") for label in style.wrapped_labels(plot)]:
        ticks = {"tickvals": list(range(len(labels))), "ticktext": labels, "showgrid": False, "ticklabelstandoff": 6}
        return axis | ticks | {"range": style.label_limits(plot)}
    if style.is_log(plot):
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


def _draw(figure: go.Figure, plot: Plot, number: int, series_style: style.SeriesStyle) -> None:
    series, colour, values = plot.series[number], series_style.colour, _values(plot, number)
    match style.mark_kind(plot, series):
        case "lines":
            if (bounds := style.interval_bounds(series)) is not None:
                low_high = (100 if plot.percent_y else 1) * np.array(bounds)
                finite = np.isfinite(low_high).all(0)
                x, (low, high) = np.array(_coordinates(plot, number))[finite], low_high[:, finite]
                figure.add_trace(band(x, low, high, colour, style.BAND_OPACITY, legendgroup=str(number)))
            figure.add_scatter(
                **values,
                mode="lines+markers",
                line={"color": colour, "width": series_style.width, "dash": series_style.dash},
                marker={**_marker(series, series_style, 8), "maxdisplayed": 2 * style.MARKERS_PER_LINE},
            )
        case "dots":
            errors = _error_bars(plot, series, colour, style.ERROR_BAR_WIDTH)
            figure.add_scatter(**values, mode="markers", marker=_marker(series, series_style, 11), **errors)


def _marker(series: Series, series_style: style.SeriesStyle, size: int) -> dict[str, Any]:
    colour, symbol = series_style.colour, series_style.symbol
    if series.estimate:
        return {"color": colour, "size": size, "symbol": f"{symbol}-open", "line": {"width": 2.2, "color": colour}}
    return {"color": colour, "size": size, "symbol": symbol}


def _error_bars(plot: Plot, series: Series, colour: str, thickness: float) -> dict[str, Any]:
    if (lengths := style.error_lengths(series)) is None:
        return {}
    scale = 100 if plot.percent_y else 1
    below, above = ([scale * one for one in side] for side in lengths)
    return {f"error_{_axes(plot)[1][0]}": error_bars(above, below, color=colour, thickness=thickness, width=4)}


def _coordinates(plot: Plot, number: int) -> list[float]:
    scale = 100 if plot.percent_x and not style.tick_labels(plot) else 1
    return [scale * x for x in style.positions(plot, number)]


def _values(plot: Plot, number: int) -> dict[str, Any]:
    series, scale = plot.series[number], 100 if plot.percent_y else 1
    kind = "estimate" if series.estimate else "for comparison" if series.reference else "measured"
    bounds, texts, axis = style.interval_bounds(series), [], f"{plot.x_label}: " if plot.x_label else ""
    across: Sequence[float | str] = series.x
    for at, (x, y) in enumerate(zip(across, series.y, strict=True)):
        value = format_value(y, plot.percent_y)
        if bounds is not None and all(math.isfinite(side[at]) for side in bounds):
            value += f" [{', '.join(format_value(side[at], plot.percent_y) for side in bounds)}]"
        lines = (series.name, f"{axis}{style.tick_label(plot, x)}", f"{value}, {kind}")
        texts.append([literal(line) for line in lines])
    values = (_coordinates(plot, number), [scale * y for y in series.y])
    return {
        **{name[0]: each for name, each in zip(_axes(plot), values, strict=True)},
        "name": literal(style.legend_label(series)),
        "legendgroup": str(number),
        "customdata": texts,
        "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    }
