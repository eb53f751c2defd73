"""Plots and picture sheets of a result, as files: PNG to look at, SVG to print and to put into a paper.

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
    places,
    positions,
    whiskers,
    wrapped,
)
from core.experiments.picture_sheet import picture_sheet
from core.experiments.results import Plot, Result, Series
from core.runtime.files import replacing

_DPI = 150
_WIDTH_PX, _HEIGHT_PX, _FRAME_PX, _LINE_PX = 1400, 700, 120, 34
_WORD_PX, _MARK_PX = 40, 12  # of a word at the left, and of each mark beside it
_TITLE_CHARACTERS, _NOTE_CHARACTERS = 66, 128
_INK = "#1b2430"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so every machine draws the same
    "font.size": 12,
    "text.parse_math": False,  # names of classes and files may hold a $
    "svg.fonttype": "none",  # words stay words: they can be searched, read aloud and edited
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


def draw_result(folder: Path, result: Result) -> None:
    """Write ``plots/NAME.png``, ``plots/NAME.svg`` and ``grids/NAME.png`` of everything in a result.

    Raises:
        UserError: a plot that cannot be drawn; an image set that is not on this machine; a folder that cannot be
            written.
    """
    for plot in result.plots:
        _draw_plot(folder / "plots", plot)
    for grid in result.grids:
        sheet = picture_sheet(grid)
        with replacing(folder / "grids" / f"{grid.name}.png", durable=False) as file:
            sheet.save(file, "PNG", optimize=True)


def _draw_plot(folder: Path, plot: Plot) -> None:
    check(plot)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands where the font has no such letter
        figure = plot_figure(plot)
        with replacing(folder / f"{plot.name}.png", durable=False) as file:
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None, "Title": plot.title})
        with replacing(folder / f"{plot.name}.svg", durable=False) as file:
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Title": plot.title})


def plot_figure(plot: Plot) -> Figure:
    """The plot as a figure of Matplotlib, 1,400 pixels wide."""
    title, notes = textwrap.wrap(plot.title, _TITLE_CHARACTERS), textwrap.wrap(plot.note, _NOTE_CHARACTERS)
    rows = _legend_rows(plot)
    words = len(places(plot)) if lies(plot) else 0
    height: float = (words * (_WORD_PX + _MARK_PX * len(plot.series)) or _HEIGHT_PX) + _FRAME_PX
    height += _LINE_PX * (len(title) + 0.7 * len(notes) + len(rows))
    figure = Figure((_WIDTH_PX / _DPI, height / _DPI), dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    axes = figure.add_subplot()
    styles = looks(plot.series)
    draw = {"lines": _lines, "dots": _dots, "bars": _bars}[plot.kind]
    for number, (series, look) in enumerate(zip(plot.series, styles, strict=True)):
        draw(axes, plot, number, series, look)
    _axes(axes, plot)
    figure.suptitle("\n".join(title), x=0.01, ha="left", fontsize=14, fontweight="bold")
    if rows:
        # Matplotlib lists lines before dots with whiskers, whatever was drawn first.
        drawn = {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        axes.legend(
            [drawn[f"series {number}"] for number in range(len(plot.series))],
            [label(series) for series in plot.series],
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
    """Names of the series in as few equal columns as fit; none for one series that its title tells."""
    if not has_legend(plot):
        return []
    names = [label(series) for series in plot.series]
    room = 60 if lies(plot) else 96
    columns = max(1, min(len(names), room // (max(map(len, names), default=0) + 9)))
    return [names[start : start + columns] for start in range(0, len(names), columns)]


def _lines(axes: Axes, plot: Plot, number: int, series: Series, look: Look) -> None:
    if len(series.x) == 1:  # a band would have no width
        _dots(axes, plot, number, series, look)
        return
    x = positions(plot, number)
    if (band := ends(series)) is not None:
        axes.fill_between(x, *band, color=look.colour, alpha=0.16, linewidth=0)
    style = {
        "linestyle": look.stroke,
        "linewidth": 1.8 if series.reference else 2.4,
        "markevery": max(1, len(x) // MARKED),
        **_marker(series, look),
    }
    axes.plot(x, series.y, color=look.colour, label=f"series {number}", **style)


def _dots(axes: Axes, plot: Plot, number: int, series: Series, look: Look) -> None:
    options: dict[str, Any] = {
        "ecolor": look.colour,
        "elinewidth": 2.2,
        "capsize": 4,
        "capthick": 2.2,
        "label": f"series {number}",
    }
    options |= _marker(series, look, 9)
    at, reach = positions(plot, number), whiskers(series)
    if lies(plot):
        axes.errorbar(series.y, at, xerr=reach, linestyle="none", **options)
    else:
        axes.errorbar(at, series.y, yerr=reach, linestyle="none", **options)


def _bars(axes: Axes, plot: Plot, number: int, series: Series, look: Look) -> None:
    options: dict[str, Any] = {
        "ecolor": _INK,
        "capsize": 4,
        "error_kw": {"elinewidth": 1.8},
        "color": "white" if series.estimate else look.colour,
        "edgecolor": look.colour,
        "linewidth": 2.0,
        "linestyle": "--" if series.estimate else "-",
        "label": f"series {number}",
    }
    at, reach = positions(plot, number), whiskers(series)
    if lies(plot):
        axes.barh(at, series.y, bar_width(plot), xerr=reach, **options)
    else:
        axes.bar(at, series.y, bar_width(plot), yerr=reach, **options)


def _marker(series: Series, look: Look, size: float = 7.5) -> dict[str, Any]:
    """Hollow where the values are estimates."""
    face = "white" if series.estimate else look.colour
    return {
        "marker": look.marker,
        "markersize": size,
        "markerfacecolor": face,
        "markeredgecolor": look.colour,
        "markeredgewidth": 2.0 if series.estimate else 0.8,
    }


def _axes(axes: Axes, plot: Plot) -> None:
    lying, words = lies(plot), wrapped(plot)
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    places_axis: Axis = axes.xaxis
    values_axis: Axis = axes.yaxis
    if lying:
        axes.set(xlabel=plot.y_label, ylabel=plot.x_label)
        places_axis, values_axis = axes.yaxis, axes.xaxis
    values_axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, plot.percent_y)))
    if words:
        ends_at = (-0.6, len(words) - 0.4)
        axes.set(ylim=ends_at[::-1]) if lying else axes.set(xlim=ends_at)
        places_axis.grid(visible=False)
        places_axis.set_ticks(range(len(words)), words)
    else:
        if is_log(plot):
            axes.set_xscale("log")
        places_axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, plot.percent_x)))
        places_axis.set_minor_formatter(_Minor(plot.percent_x))
    if plot.kind == "bars":
        (axes.axvline if lying else axes.axhline)(0, color=GREY, linewidth=1)


class _Minor(LogFormatter):
    """Writes figures between the decades where there are few decades, without powers."""

    def __init__(self, percent: bool) -> None:
        super().__init__(labelOnlyBase=False)
        self._percent = percent

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _tick(x, self._percent) if super().__call__(x, pos) else ""


def _tick(value: float, percent: bool) -> str:
    return (f"{100 * value:,.6g} %" if percent else f"{value:,.8g}").replace("-", "−")
