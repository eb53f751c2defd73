"""A Plotly chart of the distribution of scores."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from core.ui.charts.common import HARMFUL, HELPFUL, NEUTRAL


def score_histogram(
    scores: np.ndarray, what: str, marked: float | None = None, ends: tuple[str, str] = ("harmful", "helpful")
) -> go.Figure:
    """Return a histogram of scores, negative left, positive right; ``marked`` draws a line at one score."""
    edges = np.histogram_bin_edges(scores, bins=min(60, max(10, int(len(scores) ** 0.5) * 2)))
    counts, _ = np.histogram(scores, edges)
    middle = (edges[:-1] + edges[1:]) / 2
    figure = go.Figure(
        go.Bar(
            x=middle,
            y=counts,
            width=np.diff(edges),
            marker_color=np.where(middle < 0, HARMFUL, HELPFUL),
            hovertemplate="%{y} " + what + " around %{x:.2e}<extra></extra>",
        )
    )
    figure.add_vline(x=0, line_width=1, line_color=NEUTRAL)
    if marked is not None:
        figure.add_vline(x=marked, line_width=2, line_dash="dot", line_color=NEUTRAL)
    figure.update_layout(
        height=210,
        margin={"l": 10, "r": 10, "t": 28, "b": 10},
        bargap=0,
        title={"text": f"{ends[0]}  ◀  score  ▶  {ends[1]}", "font": {"size": 13}, "x": 0.5},
        xaxis={"tickformat": ".1e", "fixedrange": True},
        yaxis={"title": what, "fixedrange": True},
    )
    return figure
