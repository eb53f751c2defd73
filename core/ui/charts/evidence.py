"""Plotly charts of how well rankings predict retraining."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from core.evidence.lds import Score
from core.ui.charts.common import AXIS, HARMFUL, LOSS, MEASURED, NEUTRAL, categories, error_bars, faint
from core.ui.trust.evidence_results import score_of

_KINDS = {
    "influence": ("influence methods", MEASURED, "circle"),
    "baseline": ("baselines", HARMFUL, "diamond"),
    "combination": ("combinations", LOSS, "square"),
}
_ROW_PX, _FRAME_PX = 34, 140


def methods_figure(rated: pd.DataFrame, ceiling: Score | None, measure: str) -> go.Figure:
    """Return a figure with one dot and its 95 % interval per method, in order from the top, and the ceiling as a band.

    The values are in the column ``measure``, their intervals in ``<measure>_low`` and ``<measure>_high``.
    """
    figure = go.Figure()
    for kind, (name, colour, symbol) in _KINDS.items():
        part = rated[rated["kind"] == kind]
        if part.empty:
            continue
        mean, low, high = (part[column] for column in (measure, f"{measure}_low", f"{measure}_high"))
        figure.add_scatter(
            x=mean,
            y=part["method"],
            name=name,
            mode="markers",
            marker={"color": colour, "size": 11, "symbol": symbol},
            error_x=error_bars(high - mean, mean - low, color=colour, thickness=2.5),
            customdata=[[score_of(row, measure).text] for _, row in part.iterrows()],
            hovertemplate="%{y}<br>%{customdata[0]}, measured<extra></extra>",
        )
    if ceiling is not None:
        figure.add_vrect(x0=ceiling.low, x1=ceiling.high, fillcolor=faint(NEUTRAL, 0.18), line_width=0, layer="below")
        figure.add_vline(
            x=ceiling.mean,
            line_width=1.5,
            line_dash="dash",
            line_color=NEUTRAL,
            annotation={"text": "ceiling: between retrainings", "font_size": 12, "yanchor": "bottom"},
            annotation_position="top",
        )
    figure.add_vline(x=0, line_width=1, line_color=NEUTRAL)
    order = rated["method"].tolist()
    figure.update_yaxes(**categories(order))
    figure.update_xaxes(title="rank correlation of predicted and measured loss", **AXIS)
    figure.update_layout(
        height=_FRAME_PX + _ROW_PX * len(order),
        margin={"l": 10, "r": 20, "t": 70, "b": 30},
        legend={"orientation": "h", "y": 1, "yanchor": "top", "x": 0, "yref": "container"},
    )
    return figure


def agreement_figure(points: pd.DataFrame, kind: str) -> go.Figure:
    """Return a figure of :func:`core.ui.trust.evidence_results.points`, with the range over seeds."""
    _, colour, symbol = _KINDS[kind]
    figure = go.Figure(
        go.Scatter(
            x=points["predicted"],
            y=points["measured"],
            mode="markers",
            marker={"color": colour, "size": 9, "symbol": symbol},
            error_y=error_bars(
                points["highest"] - points["measured"],
                points["measured"] - points["lowest"],
                color=faint(colour, 0.55),
                thickness=1.5,
            ),
            customdata=points[["subset", "lowest", "highest"]].to_numpy(),
            hovertemplate=(
                "subset %{customdata[0]}<br>predicted %{x:.3g}, an estimate<br>"
                "measured %{y:.4f} [%{customdata[1]:.4f}, %{customdata[2]:.4f}]<extra></extra>"
            ),
        )
    )
    figure.update_layout(
        height=380,
        margin={"l": 10, "r": 20, "t": 20, "b": 30},
        xaxis={"title": "predicted loss, up to a constant (estimate)", **AXIS},
        yaxis={"title": "measured loss, nats", **AXIS},
    )
    return figure
