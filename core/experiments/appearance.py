"""How plots look, on disk and in the browser alike: colours, markers, places, and axes.

The colours are those of Okabe and Ito, which people with any kind of colour blindness can tell apart; a series also has
its own marker, so that a grey print can be read.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from core.experiments.results import KINDS, Plot, Series
from core.runtime.errors import UserError

HELPS, HARMS, GREY = "#0d9488", "#d9480f", "#6b7280"
"""Of scores, and of what is shown for comparison only; as on every page."""
MARKED = 12
"""Lines of many more points have a marker only here and there."""
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
_STROKES = (("-", "solid"), ("--", "dash"))  # of what is measured, and of estimates
_GREY_STROKES = ((":", "dot"), ("-.", "dashdot"))
_THOUSAND = 1000
_LONGEST, _BESIDE = 34, 92  # characters of a line of one word, and of all words that stand beside each other
_GROUP = 0.8  # of the room of one place that its bars or dots take


@dataclass(frozen=True)
class Look:
    """Of one series; ``marker`` and ``stroke`` are Matplotlib's names, ``symbol`` and ``dash`` Plotly's."""

    colour: str
    marker: str
    symbol: str
    stroke: str
    dash: str


def looks(series: Sequence[Series]) -> list[Look]:
    """One a series, in their order; references are grey."""
    found: list[Look] = []
    greys = 0
    for number, one in enumerate(series):
        colour = GREY if one.reference else _COLOURS[(number - greys) % len(_COLOURS)]
        stroke = _GREY_STROKES[greys % len(_GREY_STROKES)] if one.reference else _STROKES[one.estimate]
        found.append(Look(colour, *_MARKERS[number % len(_MARKERS)], *stroke))
        greys += one.reference
    return found


def check(plot: Plot) -> None:
    """Raise UserError for what cannot be drawn."""
    whole = plot.kind in KINDS and all(
        len(one.x) == len(one.y) and all(len(ends) == len(one.y) for ends in (one.low, one.high) if ends is not None)
        for one in plot.series
    )
    if not whole:
        raise UserError(f"The plot “{plot.title}” is damaged.", "Run the experiment again; what was measured is kept.")


def places(plot: Plot) -> list[str]:
    """The words along the axis, in the order in which they first occur; empty where the axis is one of numbers.

    Bars always stand on words: a number is written out.
    """
    words = plot.kind == "bars" or any(isinstance(x, str) for one in plot.series for x in one.x)
    return list(dict.fromkeys(place(plot, x) for one in plot.series for x in one.x)) if words else []


def place(plot: Plot, x: float | str) -> str:
    """A place as a word."""
    return x if isinstance(x, str) else written(x, plot.percent_x)


def positions(plot: Plot, number: int) -> list[float]:
    """Where the values of one series stand: their numbers, or beside those of the other series at the same words."""
    series, words = plot.series[number], {word: at for at, word in enumerate(places(plot))}
    if not words:
        return [float(x) for x in series.x]
    apart = 0.0 if plot.kind == "lines" else _GROUP / len(plot.series)
    shift = (number - (len(plot.series) - 1) / 2) * apart
    return [words[place(plot, x)] + shift for x in series.x]


def wrapped(plot: Plot) -> list[str]:
    """The words along the axis, in lines."""
    words = places(plot)
    return ["\n".join(textwrap.wrap(word, _LONGEST if lies(plot) else _fitting(words))) or word for word in words]


def lies(plot: Plot) -> bool:
    """Whether the words stand below each other at the left: many or long ones do not fit beside each other."""
    words = places(plot)
    if plot.kind == "lines" or not words:
        return False
    lines = [textwrap.wrap(word, _fitting(words), break_long_words=False) for word in words]
    return any(len(each) > 2 or any(len(line) > _fitting(words) for line in each) for each in lines)


def _fitting(words: Sequence[str]) -> int:
    """How many characters of each word fit beside those of the others."""
    return max(4, min(_LONGEST, _BESIDE // len(words)))


def bar_width(plot: Plot) -> float:
    """Of one bar, with a little air to the next."""
    return 0.92 * _GROUP / len(plot.series)


def has_legend(plot: Plot) -> bool:
    """Whether the names of the series are needed; the title tells what a single measured one is."""
    return len(plot.series) > 1 or any(series.estimate or series.reference for series in plot.series)


def is_log(plot: Plot) -> bool:
    """Whether the axis is logarithmic; where a value is not positive it cannot be."""
    return plot.log_x and not places(plot) and not any(float(x) <= 0 for one in plot.series for x in one.x)


def ends(series: Series) -> tuple[list[float], list[float]] | None:
    """Low and high, where a series has both."""
    return None if series.low is None or series.high is None else (series.low, series.high)


def whiskers(series: Series) -> tuple[list[float], list[float]] | None:
    """How far low and high lie from the values, never less than nothing."""
    if (found := ends(series)) is None:
        return None
    low, high = found
    below = [max(y - end, 0.0) for y, end in zip(series.y, low, strict=True)]
    return below, [max(end - y, 0.0) for y, end in zip(series.y, high, strict=True)]


def written(value: float, percent: bool) -> str:
    """``12.5 %`` or ``0.125``, in words where it is no number."""
    if not math.isfinite(value):
        return "not known"
    shown = 100 * value if percent else value
    text = f"{shown:,.0f}" if _THOUSAND <= abs(shown) < _THOUSAND**3 else f"{shown:.4g}"
    return f"{text} %" if percent else text


def label(series: Series) -> str:
    """The name, with a word where it is not measured."""
    return f"{series.name} (estimate)" if series.estimate and "estimate" not in series.name.lower() else series.name
