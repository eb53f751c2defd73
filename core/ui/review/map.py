"""Draw the images of a queue on a map of their features; a drawn selection filters the grid."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from core.review.filters import Point, simplify_lasso
from core.review.review_queue import Queue
from core.review.review_state import VERDICTS, ReviewState
from core.ui.charts.common import HARMFUL, HELPFUL, MEASURED, NEUTRAL, PALETTE, literal
from core.ui.review.detail import QUEUE_HASH, features
from core.ui.shell.context import table
from core.workspace.runs import Run

MAX_POINTS = 20_000
_COLOURS = {"": NEUTRAL, "keep": HELPFUL, "remove": HARMFUL, "relabel": MEASURED, "unsure": PALETTE[2]}
_CLASS_COLOURS = (MEASURED, *PALETTE)
_UMAP_HELP = (
    "PCA is always available; UMAP needs the package umap-learn. Only areas selected on the PCA map filter the grid."
)


def drawn_area(queue: Queue, state: ReviewState) -> tuple[Point, ...] | None:
    """Draw the map; return the area that the user has just drawn, or None."""
    left, right, words = st.columns([1.4, 1.4, 4], vertical_alignment="bottom")
    colour = left.selectbox("Colour by", ["suspicion", "decision", "given class"], key="review_map_colour")
    methods = ["PCA", "UMAP"] if find_spec("umap") else ["PCA"]
    method = right.selectbox("Projection", methods, key="review_map_way", help=_UMAP_HELP)
    places = _umap(queue) if method == "UMAP" else table(Run(queue.folder), "map.parquet")
    if len(places) > MAX_POINTS:
        words.caption(f"A sample of {MAX_POINTS:,} of {len(places):,} images. Select an area to filter the grid.")
        places = places.iloc[np.random.default_rng(0).permutation(len(places))[:MAX_POINTS]]
    else:
        words.caption(f"{len(places):,} images by their features. Select an area to filter the grid.")
    figure = chart(queue, state, places, colour)
    event = st.plotly_chart(
        figure,
        key=f"review_map_chart_{method}",
        on_select="rerun",
        selection_mode=("lasso", "box"),
        config={"displaylogo": False},
    )
    return area(event) if method == "PCA" else None


@st.cache_resource(max_entries=2, show_spinner="Computing UMAP", hash_funcs=QUEUE_HASH)
def _umap(queue: Queue) -> pd.DataFrame:
    from umap import UMAP  # type: ignore[import-not-found]

    found = features(queue)
    x, y = np.asarray(UMAP(random_state=0, metric="cosine").fit_transform(found.values)).T
    return pd.DataFrame({"image_id": found.ids, "x": x, "y": y})


def chart(queue: Queue, state: ReviewState, places: pd.DataFrame, colour: str) -> go.Figure:
    """Return the map with one point per image.

    An image of several items has the colour of its most suspicious one.
    """
    at = [int(queue.positions_of_image[name][0]) for name in places["image_id"]]
    groups: list[tuple[str, np.ndarray, dict[str, Any]]]
    if colour == "decision":
        verdict = state.verdict[at]
        groups = [
            (name or "undecided", verdict == code, {"color": _COLOURS[name]}) for code, name in enumerate(VERDICTS)
        ]
    elif colour == "given class":
        given = queue.given[at]
        most = pd.Series(given).value_counts().index[: len(_CLASS_COLOURS)].tolist()
        groups = [
            (queue.names[label], given == label, {"color": shade})
            for label, shade in zip(most, _CLASS_COLOURS, strict=False)
        ]
        groups.append(("other classes", ~np.isin(given, most), {"color": NEUTRAL}))
    else:
        marker = {"color": queue.percentiles["suspicion"][at], "colorscale": "Cividis"}
        groups = [("", np.ones(len(at), bool), {**marker, "colorbar": {"title": "percentile"}})]
    figure = go.Figure(
        [
            go.Scattergl(
                x=places["x"][which],
                y=places["y"][which],
                mode="markers",
                name=literal(name),
                customdata=[literal(image) for image in places["image_id"][which]],
                marker={"size": 5, "opacity": 0.75, **marker},
                hovertemplate="%{customdata}<extra></extra>",
            )
            for name, which, marker in groups
            if which.any()
        ]
    )
    figure.update_layout(
        height=420,
        margin={"l": 0, "r": 0, "t": 8, "b": 0},
        dragmode="lasso",
        showlegend=colour != "suspicion",
        legend={"itemsizing": "constant"},
        xaxis={"visible": False},
        yaxis={"visible": False, "scaleanchor": "x"},
    )
    return figure


def area(event: Any) -> tuple[Point, ...] | None:
    """Return the corners of the last lasso or box that ``st.plotly_chart`` reports; None if nothing was drawn."""
    selection = event.get("selection", {}) if hasattr(event, "get") else {}
    for one in reversed(selection.get("lasso", [])):
        corners = list(zip(one["x"], one["y"], strict=True))
        if len(corners) >= 3:
            return simplify_lasso(corners)
    for one in reversed(selection.get("box", [])):
        (x1, x2), (y1, y2) = one["x"], one["y"]
        return simplify_lasso([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    return None
