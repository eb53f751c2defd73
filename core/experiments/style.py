"""The look of plots, for both Matplotlib and Plotly: colours, markers, widths, positions and axes.

The colours are those of Okabe and Ito, which people with any kind of colour blindness can distinguish; each series also
has its own marker, so that a grey print stays readable.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from core.experiments.formatting import format_value
from core.experiments.results import KINDS, Plot, Series
from core.runtime.errors import UserError

HELPS, HARMS, GREY = "#0d9488", "#d9480f", "#6b7280"
"""Colours of helpful and harmful scores, and of what is shown for comparison only; the same on every page."""
MARKERS_PER_LINE = 12
"""Longer lines carry a marker at some of their points only."""
BAND_OPACITY, ERROR_BAR_WIDTH = 0.16, 2.2
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = (
    ("o", "circle"),
    ("D", "diamond"),
    ("s", "square"),
    ("^", "triangle-up"),
    ("v", "triangle-down"),
    ("P", "cross"),
    ("X", "x"),
)
_STROKES = (("-", "solid"), ("--", "dash"))  # measurements, estimates
_GREY_STROKES = ((":", "dot"), ("-.", "dashdot"))
_LINE_CHARACTERS, _AXIS_CHARACTERS = 34, 92  # of one tick label, and of all tick labels side by side
_GROUP_WIDTH = 0.8  # of the distance between two tick labels, taken by the dots of one label


@dataclass(frozen=True)
class SeriesStyle:
    """A look that tells one series from the others.

    Attributes:
        marker, stroke: Matplotlib's names.
        symbol, dash: Plotly's names of the same.
        width: Of a line, in points or pixels.
    """

    colour: str
    marker: str
    symbol: str
    stroke: str
    dash: str
    width: float


def series_styles(series: Sequence[Series]) -> list[SeriesStyle]:
    """Return one style per series, in order; references are grey."""
    styles: list[SeriesStyle] = []
    greys = 0
    for number, one in enumerate(series):
        colour = GREY if one.reference else _COLOURS[(number - greys) % len(_COLOURS)]
        stroke = _GREY_STROKES[greys % len(_GREY_STROKES)] if one.reference else _STROKES[one.estimate]
        styles.append(SeriesStyle(colour, *_MARKERS[number % len(_MARKERS)], *stroke, 1.8 if one.reference else 2.4))
        greys += one.reference
    return styles


def check_plot(plot: Plot) -> None:
    """Check that a plot can be drawn.

    Raises:
        UserError: its kind is unknown, or the lengths of a series differ.
    """
    intact = plot.kind in KINDS and all(
        len(bound) == len(series.y)
        for series in plot.series
        for bound in (series.x, series.low, series.high)
        if bound is not None
    )
    if not intact:
        raise UserError(
            f"The plot “{plot.title}” is damaged.", "Run the experiment again; its measurements are stored."
        )


def mark_kind(plot: Plot, series: Series) -> str:
    """Return how a series is drawn, one of :data:`KINDS`: a line of one point as a dot, as its band has no width."""
    return "dots" if plot.kind == "lines" and len(series.x) == 1 else plot.kind


def tick_labels(plot: Plot) -> list[str]:
    """Return the labels of a categorical axis in order of first occurrence; empty for a numeric axis."""
    values = [x for series in plot.series for x in series.x]
    return list(dict.fromkeys(tick_label(plot, x) for x in values)) if any(isinstance(x, str) for x in values) else []


def tick_label(plot: Plot, x: float | str) -> str:
    """Return a value of ``x`` as text."""
    return x if isinstance(x, str) else format_value(x, plot.percent_x)


def positions(plot: Plot, number: int) -> list[float]:
    """Return the coordinates of series ``number``: its values, or places beside the other series of the same label."""
    series, index = plot.series[number], {label: position for position, label in enumerate(tick_labels(plot))}
    if not index:
        return [float(x) for x in series.x]
    step = 0.0 if plot.kind == "lines" else _GROUP_WIDTH / len(plot.series)
    shift = (number - (len(plot.series) - 1) / 2) * step
    return [index[tick_label(plot, x)] + shift for x in series.x]


def wrapped_labels(plot: Plot) -> list[str]:
    """Return the labels of a categorical axis, broken into lines."""
    labels = tick_labels(plot)
    width = _LINE_CHARACTERS if is_horizontal(plot) else _label_width(labels)
    return ["\n".join(textwrap.wrap(label, width)) or label for label in labels]


def is_horizontal(plot: Plot) -> bool:
    """Return whether labels are listed at the left, as many or long ones do not fit side by side."""
    labels = tick_labels(plot)
    if plot.kind == "lines" or not labels:
        return False
    width = _label_width(labels)
    lines = [textwrap.wrap(label, width, break_long_words=False) for label in labels]
    return any(len(each) > 2 or any(len(line) > width for line in each) for each in lines)


def label_limits(plot: Plot) -> list[float]:
    """Return the ends of a categorical axis; the first label is at the top of a vertical one."""
    limits = [-0.6, len(tick_labels(plot)) - 0.4]
    return limits[::-1] if is_horizontal(plot) else limits


def plot_height(plot: Plot, default: int, per_label: int, per_mark: int) -> int:
    """Return the height in pixels: the default, or room for the marks of every label listed at the left."""
    labels = len(tick_labels(plot)) if is_horizontal(plot) else 0
    return labels * (per_label + per_mark * len(plot.series)) or default


def _label_width(labels: Sequence[str]) -> int:
    """Return how many characters of each label fit side by side."""
    return max(4, min(_LINE_CHARACTERS, _AXIS_CHARACTERS // max(1, len(labels))))


def has_legend(plot: Plot) -> bool:
    """Return whether series must be named; for a single measured series the title does."""
    return len(plot.series) > 1 or any(series.estimate or series.reference for series in plot.series)


def is_log(plot: Plot) -> bool:
    """Return whether the axis is logarithmic, which needs positive numbers."""
    return plot.log_x and not tick_labels(plot) and not any(float(x) <= 0 for series in plot.series for x in series.x)


def interval_bounds(series: Series) -> tuple[list[float], list[float]] | None:
    """Return low and high where a series has both."""
    return None if series.low is None or series.high is None else (series.low, series.high)


def error_lengths(series: Series) -> tuple[list[float], list[float]] | None:
    """Return the distances of low and high from the values, 0 where a bound is on the wrong side."""
    if (bounds := interval_bounds(series)) is None:
        return None
    low, high = bounds
    below = [max(y - bound, 0.0) for y, bound in zip(series.y, low, strict=True)]
    return below, [max(bound - y, 0.0) for y, bound in zip(series.y, high, strict=True)]


def legend_label(series: Series) -> str:
    """Return the name, marked where it is an estimate."""
    return f"{series.name} (estimate)" if series.estimate and "estimate" not in series.name.lower() else series.name
