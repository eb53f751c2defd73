"""Images and charts embedded in the HTML report: data URIs, and SVG by matplotlib in the page's colours."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter
from PIL import Image

from core.data import ImageSet
from core.data.images import squeeze_grey
from core.decisions.causes import CAUSE_WORDS
from core.decisions.table import ITEM
from core.review.forecast import Forecast

MAX_TILES = 120
"""Images shown per section; the rest are counted. 360 of 28 pixels are half a megabyte."""
THUMBNAIL_PX = 96
LOSSLESS_PX = 40
"""Images of at most this size are stored as PNG, larger ones as JPEG."""
MAX_POINTS = 240
"""Points per line: about two pixels apart, which nobody can tell from all of them."""
COLOURS = 6
"""The page's style sheet defines ``--c0`` to ``--c5``."""
_SIZE_INCHES = (5.6, 2.6)
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "svg.fonttype": "none",  # text stays text, in the font and colour of the page
    "svg.hashsalt": "tasklens",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "xtick.bottom": False,
    "ytick.left": False,
}
# Matplotlib takes no CSS variables: lines are drawn in placeholder colours #00ff00, #00ff01, ..., which are replaced.
_PLACEHOLDER = "#00ff{:02x}"
_RULE = "#00fe00"


class Section(NamedTuple):
    """A grid of images: data URI, alternative text, two lines and details of each; ``more`` images are left out."""

    title: str
    tiles: list[tuple[str, str, str, str, str]]
    more: int


def image_section(title: str, rows: pd.DataFrame, images: ImageSet) -> Section:
    """Return the images in rows of :func:`core.decisions.export_tables.decision_table` with their decisions."""
    rows = rows[rows["image_id"] != ""]
    by_item = list(rows.groupby(list(ITEM), sort=False))
    tiles = []
    for (_, task, role, image), decisions in by_item[:MAX_TILES]:
        given = str(decisions["given"].iloc[-1])
        pairs = zip(decisions["verdict"], decisions["label"], strict=True)
        outcomes = [f"→ {label}" if verdict == "relabel" else verdict for verdict, label in pairs]
        causes = [
            f" ({CAUSE_WORDS[cause]})" if verdict == "remove" else ""
            for verdict, cause in zip(decisions["verdict"], decisions["cause"], strict=True)
        ]
        by_reviewer = zip(decisions["reviewer"], outcomes, causes, strict=True)
        opinions = [f"{reviewer}: {outcome}{cause}" for reviewer, outcome, cause in by_reviewer]
        second = " / ".join(dict.fromkeys(outcomes))
        where = f"{role} of {task}" if task else "everywhere"
        reason = "; ".join(dict.fromkeys(filter(None, decisions["reason"])))
        alt_text = f"{image}, given {given}, {second}"
        details = f"{image} ({where}). {'; '.join(opinions)}{'. ' + reason if reason else ''}"
        tiles.append((thumbnail(images.images[images.index[str(image)]]), alt_text, f"given {given}", second, details))
    return Section(title, tiles, len(by_item) - len(tiles))


def forecast_chart(expected: Forecast) -> str:
    """Return a chart of the label errors found and left by depth of the queue."""
    depth = np.arange(len(expected.found))
    return chart(
        [
            Line("found by then", depth, expected.found, expected.found_low, expected.found_high),
            Line("left after that", depth, expected.remaining, expected.remaining_low, expected.remaining_high),
        ],
        title="Expected label errors by depth of the queue, with 90 % intervals",
        x_label="items checked from the top of the queue",
        y_label="label errors",
    )


def calibration_charts(curves: pd.DataFrame, candidates: pd.DataFrame) -> list[str]:
    """Return one chart per kind of injected error: share found against share checked, by the best rankings.

    The tables are those of :class:`core.review.calibration.Calibration`.
    """
    means = candidates.groupby("candidate")["average_precision"].mean().sort_values(ascending=False, kind="stable")
    chosen = candidates.loc[candidates["chosen"], "candidate"]
    ordered = dict.fromkeys([*chosen, *means.index, *curves["candidate"]])
    drawn = set(curves["candidate"])
    names = [name for name in ordered if name in drawn][: COLOURS - 1]
    charts = []
    for kind, of_kind in curves[curves["candidate"].isin(names)].groupby("planted", sort=True):
        by_name = dict(list(of_kind.sort_values("checked").groupby("candidate")))
        lines = [
            Line(str(name), np.r_[0.0, by_name[name]["checked"]], np.r_[0.0, by_name[name]["found"]])
            for name in names
            if name in by_name
        ]
        lines.append(Line("chance", np.array([0.0, 1.0]), np.array([0.0, 1.0]), is_dashed=True))
        title = f"Injected errors found ({kind}) by the ranking and the next best scores"
        charts.append(
            chart(lines, title=title, x_label="share of the items checked", y_label="share found", percent=True)
        )
    return charts


def thumbnail(pixels: np.ndarray) -> str:
    """Return a data URI of an image, ``(height, width, 1 or 3)`` uint8: lossless where small, else a 96-pixel JPEG."""
    image = Image.fromarray(squeeze_grey(pixels))
    stream, is_small = io.BytesIO(), max(image.size) <= LOSSLESS_PX
    if is_small:
        image.save(stream, "PNG", optimize=True)
    else:
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        image.save(stream, "JPEG", quality=80)
    return f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"


class Line(NamedTuple):
    """A line of a chart, with a band around it where ``low`` and ``high`` are given."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    is_dashed: bool = False


def chart(lines: Sequence[Line], *, title: str, x_label: str, y_label: str, percent: bool = False) -> str:
    """Return a line chart as an HTML figure: inline SVG without scripts, links or embedded fonts, and a legend.

    With ``percent`` both axes are shares, labelled from 0 % to 100 %.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        for number, line in enumerate(lines):
            colour, last = _PLACEHOLDER.format(number % COLOURS), len(line.x) - 1
            points = np.unique(np.linspace(0, last, min(last + 1, MAX_POINTS)).round().astype(int))
            if line.low is not None and line.high is not None:
                around = np.r_[line.x[points], line.x[points][::-1]], np.r_[line.low[points], line.high[points][::-1]]
                axes.fill(*around, color=colour, alpha=0.18, linewidth=0, clip_on=False)
            dashes = (0, (5, 4)) if line.is_dashed else "solid"
            axes.plot(line.x[points], line.y[points], color=colour, linewidth=2, linestyle=dashes, clip_on=False)
        limits = (0, 1 if percent else None)
        axes.set(xlabel=x_label, ylabel=y_label, xlim=limits, ylim=limits)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, 0) if percent else StrMethodFormatter("{x:,.4g}"))
        axes.grid(axis="y", color=_RULE, clip_on=False)
        stream = io.StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    keys = "".join(
        f'<li><span style="background:var(--c{number % COLOURS})"></span>{escape(line.name)}</li>'
        for number, line in enumerate(lines)
    )
    return (
        f"<figure>{_inline(stream.getvalue(), title)}"
        f'<figcaption>{escape(title)}<ul class="keys">{keys}</ul></figcaption></figure>'
    )


def _inline(svg: str, title: str) -> str:
    """Return an SVG document by matplotlib as an element of the page, in its colours and font."""
    svg = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = re.sub(r"^<svg[^>]*>", f'<svg {box[0]} role="img" aria-label="{escape(title)}">', svg)
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r"font-family: [^;\"]*;? ?| id=\"[^\"]*\"", "", svg)  # ids would occur twice in a page of two charts
    svg = svg.replace(_RULE, "var(--line)")
    for number in range(COLOURS):
        svg = svg.replace(_PLACEHOLDER.format(number), f"var(--c{number})")
    return re.sub(r"\s*\n\s*", " ", svg)
