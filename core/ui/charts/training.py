"""Charts of a training: loss and accuracy on training and validation tasks against the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.ui.charts.common import AXIS, LEGEND, MEASURED, NEUTRAL, PALETTE, line

_HEIGHT = 260
_SERIES = {"training": ("Training tasks", NEUTRAL), "validation": ("Validation tasks", MEASURED)}


def training_curve(history: Sequence[dict[str, Any]], steps: int, kept: int | None = None) -> go.Figure:
    """Draw the Adam steps of a history (:func:`core.maml.training.read_history`).

    Args:
        steps: All steps of the training, the end of the axis.
        kept: The step whose parameters were kept; None while the training runs.
    """
    entries = [entry for entry in history if entry["phase"] == "adam"]
    checks = [entry for entry in entries if "validation_accuracy" in entry]
    figure = make_subplots(cols=2, horizontal_spacing=0.1, subplot_titles=("Loss (nats)", "Accuracy"))
    if not checks:
        losses = line([one["done"] for one in entries], [one["loss"] for one in entries], NEUTRAL, 2)
        figure.add_trace(losses.update(name="Training batches"), row=1, col=1)
    for column, quantity in enumerate(("loss", "accuracy"), 1) if checks else ():
        for name, (label, colour) in _SERIES.items():
            values = [one[f"{name}_{quantity}"] for one in checks]
            trace = line([one["done"] for one in checks], values, colour, 2)
            # Markers show the first check, which makes no line yet.
            trace.update(mode="lines+markers", name=label, legendgroup=name, showlegend=column == 1)
            figure.add_trace(trace, row=1, col=column)
        if kept is not None:
            dotted = {"color": PALETTE[0], "dash": "dot"}
            figure.add_vline(kept, line=dotted, col=column, name="Step kept", showlegend=column == 1)
    figure.update_xaxes(AXIS | {"title": "Step", "range": [0, steps]})
    # From 0, so that the axes hardly move while the curve grows.
    figure.update_yaxes(AXIS | {"rangemode": "tozero"})
    figure.update_yaxes({"tickformat": ".0%"}, col=2)
    return figure.update_layout(
        height=_HEIGHT, margin={"l": 10, "r": 10, "t": 60, "b": 10}, legend=LEGEND | {"y": 1.15}
    )
