"""Plots and image sheets of a result as files: PNG for the screen, SVG for print.

The same plot gives the same bytes, so that an unchanged result is an unchanged file.
"""

from __future__ import annotations

import textwrap
import warnings
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogFormatter

from core.experiments import style
from core.experiments.formatting import format_tick
from core.experiments.picture_sheet import picture_sheet
from core.experiments.results import ExperimentResult, Plot
from core.runtime.replacing import replacing

_DPI = 150
_WIDTH_PX, _HEIGHT_PX, _FRAME_PX, _LINE_PX = 1400, 700, 120, 34
_LABEL_PX, _MARK_PX = 40, 12  # per tick label at the left, and per mark beside it
_TITLE_CHARACTERS, _NOTE_CHARACTERS = 66, 128
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so that every machine draws the same
    "font.size": 12,
    "text.parse_math": False,  # names of classes and files may contain a $
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and edited
    "svg.hashsalt": "tasklens",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": style.GREY,
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
        style.check_plot(plot)
        with mpl.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a box replaces letters that the font lacks
            figure = plot_figure(plot)
            with replacing(folder / "plots" / f"{plot.name}.png", durable=False) as file:
                FigureCanvasAgg(figure).print_png(file, metadata={"Software": None, "Title": plot.title})
            with replacing(folder / "plots" / f"{plot.name}.svg", durable=False) as file:
                FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Title": plot.title})
    for grid in result.grids:
        sheet = picture_sheet(grid)
        with replacing(folder / "grids" / f"{grid.name}.png", durable=False) as file:
            sheet.save(file, "PNG", optimize=True)


def plot_figure(plot: Plot) -> Figure:
    """Return the plot as a Matplotlib figure, 1,400 pixels wide."""
    title, notes = textwrap.wrap(plot.title, _TITLE_CHARACTERS), textwrap.wrap(plot.note, _NOTE_CHARACTERS)
    labels = [style.legend_label(series) for series in plot.series] if style.has_legend(plot) else []
    room = 60 if style.is_horizontal(plot) else 96
    columns = max(1, min(len(labels), room // (max(map(len, labels), default=0) + 9)))
    height: float = style.plot_height(plot, _HEIGHT_PX, _LABEL_PX, _MARK_PX) + _FRAME_PX
    height += _LINE_PX * (len(title) + 0.7 * len(notes) + ceil(len(labels) / columns))
    figure = Figure((_WIDTH_PX / _DPI, height / _DPI), dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    axes = figure.add_subplot()
    handles = [_draw(axes, plot, number, look) for number, look in enumerate(style.series_styles(plot.series))]
    _axes(axes, plot)
    figure.suptitle("\n".join(title), x=0.01, ha="left", fontsize=14, fontweight="bold")
    if labels:
        axes.legend(
            handles,
            labels,
            ncols=columns,
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


def _draw(axes: Axes, plot: Plot, number: int, look: style.SeriesStyle) -> Any:
    """Draw one series and return what stands for it in the legend."""
    series, places, horizontal = plot.series[number], style.positions(plot, number), style.is_horizontal(plot)
    x, y = (series.y, places) if horizontal else (places, series.y)
    options: dict[str, Any] = {
        "marker": look.marker,
        "markerfacecolor": "white" if series.estimate else look.colour,
        "markeredgecolor": look.colour,
        "markeredgewidth": 2.0 if series.estimate else 0.8,
    }
    if style.mark_kind(plot, series) == "lines":
        if (band := style.interval_bounds(series)) is not None:
            axes.fill_between(x, *band, color=look.colour, alpha=style.BAND_OPACITY, linewidth=0)
        every = max(1, len(x) // style.MARKERS_PER_LINE)
        options |= {"linestyle": look.stroke, "linewidth": look.width, "markersize": 7.5, "markevery": every}
        return axes.plot(x, y, color=look.colour, **options)[0]
    width = style.ERROR_BAR_WIDTH
    options |= {"ecolor": look.colour, "elinewidth": width, "capthick": width, "capsize": 4, "markersize": 9}
    options["xerr" if horizontal else "yerr"] = style.error_lengths(series)
    return axes.errorbar(x, y, linestyle="none", **options)


def _axes(axes: Axes, plot: Plot) -> None:
    horizontal, labels = style.is_horizontal(plot), style.wrapped_labels(plot)
    label_axis, value_axis = (axes.yaxis, axes.xaxis) if horizontal else (axes.xaxis, axes.yaxis)
    label_axis.set_label_text(plot.x_label)
    value_axis.set_label_text(plot.y_label)
    value_axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value, plot.percent_y)))
    if labels:
        limits = style.label_limits(plot)
        axes.set(ylim=limits) if horizontal else axes.set(xlim=limits)
        label_axis.grid(visible=False)
        label_axis.set_ticks(range(len(labels)), labels)
    else:
        if style.is_log(plot):
            axes.set_xscale("log")
        label_axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value, plot.percent_x)))
        label_axis.set_minor_formatter(_MinorTicks(plot.percent_x))


class _MinorTicks(LogFormatter):
    """A formatter that labels ticks between the decades where there are few decades, without powers."""

    def __init__(self, as_percent: bool) -> None:
        super().__init__(labelOnlyBase=False)
        self._as_percent = as_percent

    def __call__(self, x: float, pos: int | None = None) -> str:
        return format_tick(x, self._as_percent) if super().__call__(x, pos) else ""
