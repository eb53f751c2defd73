"""Plotly charts of edited models and of removal curves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.editing.net_effect import NO_CONTROL
from core.maml.evaluation import Interval
from core.ui.charts.common import AXIS, HARMFUL, LEGEND, LOSS, MEASURED, NEUTRAL, band, categories, faint, line, literal
from core.ui.edit.curve_results import ORDER_NAMES, START

_ORDERS = {
    "recommended": (MEASURED, "star"),
    "harmful": (HARMFUL, "circle"),
    "loss": (LOSS, "diamond"),
    "random": (NEUTRAL, "square"),
}
_ROW_PX, _FRAME_PX = 46, 100


@dataclass(frozen=True)
class Dot:
    """A row of :func:`edit_figure`; accuracies and effects are shares.

    Attributes:
        effect: The net effect of the changes; None for the unedited model, and where it is not known.
        control: Accuracy of the same procedure without the changes.
        estimate: Drawn hollow and dotted.
    """

    label: str
    accuracy: Interval
    effect: Interval | None
    control: Interval | None = None
    estimate: bool = False


def edit_figure(dots: list[Dot]) -> go.Figure:
    """Return a figure with the accuracies on the left and the net effects on the right, with 95 % intervals.

    The first dot is the unedited model. Controls are grey diamonds in the row of their edit.
    """
    dots = [replace(dot, label=literal(dot.label)) for dot in dots]
    figure = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=("accuracy on held-out tasks, %", "net effect of the changes, points"),
    )
    for position, dot in enumerate(dots):
        if dot.control is not None:
            _interval(figure, dot, dot.control, 1, "%", _CONTROL)
        style = _ESTIMATE if dot.estimate else _MEASUREMENT if position else _UNEDITED
        _interval(figure, dot, dot.accuracy, 1, "%", style)
        if dot.effect is not None:
            _interval(figure, dot, dot.effect, 2, " points", style)
        elif position:
            figure.add_annotation(
                x=0, y=dot.label, text=NO_CONTROL, showarrow=False, xanchor="left", xshift=6, row=1, col=2
            )
    figure.add_vline(x=100 * dots[0].accuracy.mean, line_width=1, line_dash="dot", line_color=NEUTRAL, col=1)
    figure.add_vline(x=0, line_width=1, line_dash="dot", line_color=NEUTRAL, col=2)
    figure.update_xaxes(**AXIS)
    figure.update_yaxes(**categories([dot.label for dot in dots]))
    figure.update_annotations(font_size=13)
    figure.update_layout(
        height=_FRAME_PX + _ROW_PX * len(dots), showlegend=False, margin={"l": 10, "r": 20, "t": 40, "b": 30}
    )
    return figure


@dataclass(frozen=True)
class _Style:
    kind: str
    colour: str
    symbol: str = "circle"
    dash: str = "solid"
    width: float = 2.5
    size: int = 12
    edge: float = 0


_UNEDITED = _Style("measured", NEUTRAL)
_MEASUREMENT = _Style("measured", MEASURED)
_ESTIMATE = _Style("estimate", MEASURED, "circle-open", "dot", edge=2.5)
_CONTROL = _Style("control, measured", NEUTRAL, "diamond", width=1.5, size=9)


def _interval(figure: go.Figure, dot: Dot, interval: Interval, column: int, unit: str, style: _Style) -> None:
    mean, low, high = (100 * value for value in (interval.mean, interval.low, interval.high))
    ends = line([low, high], [dot.label, dot.label], style.colour, style.width, style.dash, hoverinfo="skip")
    figure.add_trace(ends, row=1, col=column)
    figure.add_scatter(
        x=[mean],
        y=[dot.label],
        mode="markers",
        marker={
            "color": style.colour,
            "size": style.size,
            "symbol": style.symbol,
            "line": {"width": style.edge, "color": style.colour},
        },
        hovertemplate=f"%{{y}}<br>{mean:.1f}{unit} [{low:.1f}, {high:.1f}], {style.kind}<extra></extra>",
        row=1,
        col=column,
    )


def curve_figure(points: pd.DataFrame, means: pd.DataFrame, by: str) -> go.Figure:
    """Return a figure of accuracy against the share removed: the mean per order, with a band over all seeds.

    ``means`` are the :func:`core.ui.edit.curve_results.averages` of ``points``.
    """
    figure = go.Figure()
    for order, (colour, symbol) in _ORDERS.items():
        if not (points["order"] == order).any():
            continue
        singles, line_means = (frame[frame["order"].isin([order, START])] for frame in (points, means))
        by_share = 100 * line_means.set_index("share")[["accuracy", "lowest", "highest"]].sort_index()
        shares = 100 * by_share.index.to_numpy()
        figure.add_trace(band(shares, by_share["lowest"], by_share["highest"], colour, 0.14, legendgroup=order))
        figure.add_scatter(
            x=100 * singles["share"],
            y=100 * singles["accuracy"],
            mode="markers",
            marker={"color": faint(colour, 0.4), "size": 5, "symbol": symbol},
            legendgroup=order,
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=shares,
            y=by_share["accuracy"],
            name=ORDER_NAMES[order],
            legendgroup=order,
            mode="lines+markers",
            line={"color": colour, "width": 2.5},
            marker={"size": 8, "symbol": symbol},
            customdata=by_share[["lowest", "highest"]].to_numpy(),
            hovertemplate="%{y:.1f} % [%{customdata[0]:.1f}, %{customdata[1]:.1f}]",
        )
    figure.update_layout(
        height=430,
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        hovermode="x unified",
        legend=LEGEND,
        xaxis={"title": f"training {by} removed, %", **AXIS},
        yaxis={"title": "accuracy on held-out tasks, %", **AXIS},
    )
    return figure
