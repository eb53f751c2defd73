"""Plotly charts of edited models and of removal curves."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.ui.charts.common import AXIS, HARMFUL, LEGEND, LOSS, MEASURED, NEUTRAL, band, categories, faint, line
from core.ui.edit.curve_results import ORDER_NAMES, START

_ORDERS = {"harmful": (HARMFUL, "circle"), "loss": (LOSS, "diamond"), "random": (NEUTRAL, "square")}
_ROW_PX, _FRAME_PX = 46, 100


@dataclass(frozen=True)
class Dot:
    """A row of :func:`edit_figure`.

    Intervals are ``{mean, low, high}`` of shares; ``change`` is None for the reference. An ``estimate`` is drawn hollow
    and dashed.
    """

    label: str
    accuracy: dict[str, float]
    change: dict[str, float] | None
    estimate: bool = False


def edit_figure(dots: list[Dot]) -> go.Figure:
    """Return a figure with the accuracy on the left and its change on the right, as dots with 95 % intervals.

    The change is relative to the first dot, the unedited model.
    """
    figure = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=("accuracy on held-out tasks, %", "change from the unedited model, points"),
    )
    for dot in dots:
        _interval(figure, dot, dot.accuracy, 1, "%")
        if dot.change is not None:
            _interval(figure, dot, dot.change, 2, " points")
    figure.add_vline(x=100 * dots[0].accuracy["mean"], line_width=1, line_dash="dot", line_color=NEUTRAL, col=1)
    figure.add_vline(x=0, line_width=1, line_dash="dot", line_color=NEUTRAL, col=2)
    figure.update_xaxes(**AXIS)
    figure.update_yaxes(**categories([dot.label for dot in dots]))
    figure.update_annotations(font_size=13)
    figure.update_layout(
        height=_FRAME_PX + _ROW_PX * len(dots), showlegend=False, margin={"l": 10, "r": 20, "t": 40, "b": 30}
    )
    return figure


def _interval(figure: go.Figure, dot: Dot, interval: dict[str, float], column: int, unit: str) -> None:
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    colour = MEASURED if dot.change is not None else NEUTRAL
    kind, dash, symbol, edge = (
        ("estimate", "dot", "circle-open", 2.5) if dot.estimate else ("measured", "solid", "circle", 0)
    )
    figure.add_trace(line([low, high], [dot.label, dot.label], colour, 2.5, dash, hoverinfo="skip"), row=1, col=column)
    figure.add_scatter(
        x=[mean],
        y=[dot.label],
        mode="markers",
        marker={"color": colour, "size": 12, "symbol": symbol, "line": {"width": edge, "color": colour}},
        hovertemplate=f"%{{y}}<br>{mean:.1f}{unit} [{low:.1f}, {high:.1f}], {kind}<extra></extra>",
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
