"""Plots and image sheets of a result as files: PNG for the screen, SVG for print.

The same plot gives the same bytes, so that an unchanged result is an unchanged file.
"""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogFormatter

from core.experiments.formatting import format_tick
from core.experiments.picture_sheet import picture_sheet
from core.experiments.results import ExperimentResult, Plot, Series
from core.experiments.style import (
    BAND_OPACITY,
    ERROR_BAR_WIDTH,
    GREY,
    MARKERS_PER_LINE,
    SeriesStyle,
    bar_width,
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
    wrapped_labels,
)
from core.runtime.files import replacing

_DPI = 150
_WIDTH_PX, _HEIGHT_PX, _FRAME_PX, _LINE_PX = 1400, 700, 120, 34
_LABEL_PX, _MARK_PX = 40, 12  # per tick label at the left, and per mark beside it
_TITLE_CHARACTERS, _NOTE_CHARACTERS = 66, 128
_INK = "#1b2430"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so that every machine draws the same
    "font.size": 12,
    "text.parse_math": False,  # names of classes and files may contain a $
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and edited
    "svg.hashsalt": "tasklens",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e2e5ea",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def draw_result(folder: Path, result: ExperimentResult) -> None:
    """Write ``plots/NAME.png``, ``plots/NAME.svg`` and ``grids/NAME.png`` of everything in a result.

    Raises:
        UserError: a plot cannot be drawn, an image set is not on this machine, or the folder cannot be written.
    """
    for plot in result.plots:
        _draw_plot(folder / "plots", plot)
    for grid in result.grids:
        sheet = picture_sheet(grid)
        with replacing(folder / "grids" / f"{grid.name}.png", durable=False) as file:
            sheet.save(file, "PNG", optimize=True)


def _draw_plot(folder: Path, plot: Plot) -> None:
    check_plot(plot)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box replaces letters that the font lacks
        figure = plot_figure(plot)
        with replacing(folder / f"{plot.name}.png", durable=False) as file:
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None, "Title": plot.title})
        with replacing(folder / f"{plot.name}.svg", durable=False) as file:
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Title": plot.title})


def plot_figure(plot: Plot) -> Figure:
    """Return the plot as a Matplotlib figure, 1,400 pixels wide."""
    title, notes = textwrap.wrap(plot.title, _TITLE_CHARACTERS), textwrap.wrap(plot.note, _NOTE_CHARACTERS)
    rows = _legend_rows(plot)
    height: float = plot_height(plot, _HEIGHT_PX, _LABEL_PX, _MARK_PX) + _FRAME_PX
    height += _LINE_PX * (len(title) + 0.7 * len(notes) + len(rows))
    figure = Figure((_WIDTH_PX / _DPI, height / _DPI), dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    axes = figure.add_subplot()
    draw = {"lines": _draw_line, "dots": _draw_dots, "bars": _draw_bars}
    for number, (series, style) in enumerate(zip(plot.series, series_styles(plot.series), strict=True)):
        draw[mark_kind(plot, series)](axes, plot, number, series, style)
    _axes(axes, plot)
    figure.suptitle("\n".join(title), x=0.01, ha="left", fontsize=14, fontweight="bold")
    if rows:
        # Matplotlib lists lines before dots with error bars, whatever was drawn first.
        handles = {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        axes.legend(
            [handles[f"series {number}"] for number in range(len(plot.series))],
            [legend_label(series) for series in plot.series],
            ncols=max(len(row) for row in rows),
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            frameon=False,
            borderaxespad=0.3,
            handlelength=2.6,
            columnspacing=1.6,
        )
    if notes:
        figure.supxlabel("\n".join(notes), x=0.01, ha="left", fontsize=9.5, color="#4b5563")
    return figure


def _legend_rows(plot: Plot) -> list[list[str]]:
    """Return the names of the series in as few rows as fit; none for a single series that the title names."""
    if not has_legend(plot):
        return []
    names = [legend_label(series) for series in plot.series]
    room = 60 if is_horizontal(plot) else 96
    columns = max(1, min(len(names), room // (max(map(len, names), default=0) + 9)))
    return [names[start : start + columns] for start in range(0, len(names), columns)]


def _draw_line(axes: Axes, plot: Plot, number: int, series: Series, style: SeriesStyle) -> None:
    x = positions(plot, number)
    if (band := interval_bounds(series)) is not None:
        axes.fill_between(x, *band, color=style.colour, alpha=BAND_OPACITY, linewidth=0)
    options = {
        "linestyle": style.stroke,
        "linewidth": style.width,
        "markevery": max(1, len(x) // MARKERS_PER_LINE),
        **_marker(series, style),
    }
    axes.plot(x, series.y, color=style.colour, label=f"series {number}", **options)


def _draw_dots(axes: Axes, plot: Plot, number: int, series: Series, style: SeriesStyle) -> None:
    options: dict[str, Any] = {
        "ecolor": style.colour,
        "elinewidth": ERROR_BAR_WIDTH,
        "capsize": 4,
        "capthick": ERROR_BAR_WIDTH,
        "label": f"series {number}",
    }
    options |= _marker(series, style, 9)
    places, lengths = positions(plot, number), error_lengths(series)
    if is_horizontal(plot):
        axes.errorbar(series.y, places, xerr=lengths, linestyle="none", **options)
    else:
        axes.errorbar(places, series.y, yerr=lengths, linestyle="none", **options)


def _draw_bars(axes: Axes, plot: Plot, number: int, series: Series, style: SeriesStyle) -> None:
    options: dict[str, Any] = {
        "ecolor": _INK,
        "capsize": 4,
        "error_kw": {"elinewidth": 1.8},
        "color": "white" if series.estimate else style.colour,
        "edgecolor": style.colour,
        "linewidth": 2.0,
        "linestyle": "--" if series.estimate else "-",
        "label": f"series {number}",
    }
    places, lengths = positions(plot, number), error_lengths(series)
    if is_horizontal(plot):
        axes.barh(places, series.y, bar_width(plot), xerr=lengths, **options)
    else:
        axes.bar(places, series.y, bar_width(plot), yerr=lengths, **options)


def _marker(series: Series, style: SeriesStyle, size: float = 7.5) -> dict[str, Any]:
    """Return Matplotlib's options of a marker, hollow for estimates."""
    face = "white" if series.estimate else style.colour
    return {
        "marker": style.marker,
        "markersize": size,
        "markerfacecolor": face,
        "markeredgecolor": style.colour,
        "markeredgewidth": 2.0 if series.estimate else 0.8,
    }


def _axes(axes: Axes, plot: Plot) -> None:
    horizontal, labels = is_horizontal(plot), wrapped_labels(plot)
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    label_axis: Axis = axes.xaxis
    value_axis: Axis = axes.yaxis
    if horizontal:
        axes.set(xlabel=plot.y_label, ylabel=plot.x_label)
        label_axis, value_axis = axes.yaxis, axes.xaxis
    value_axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value, plot.percent_y)))
    if labels:
        limits = label_limits(plot)
        axes.set(ylim=limits) if horizontal else axes.set(xlim=limits)
        label_axis.grid(visible=False)
        label_axis.set_ticks(range(len(labels)), labels)
    else:
        if is_log(plot):
            axes.set_xscale("log")
        label_axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value, plot.percent_x)))
        label_axis.set_minor_formatter(_MinorTicks(plot.percent_x))
    if plot.kind == "bars":
        (axes.axvline if horizontal else axes.axhline)(0, color=GREY, linewidth=1)


class _MinorTicks(LogFormatter):
    """A formatter that labels ticks between the decades where there are few decades, without powers."""

    def __init__(self, as_percent: bool) -> None:
        super().__init__(labelOnlyBase=False)
        self._as_percent = as_percent

    def __call__(self, x: float, pos: int | None = None) -> str:
        return format_tick(x, self._as_percent) if super().__call__(x, pos) else ""
