"""Show named what-if sets side by side: table, chart, classes and tasks."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from core.actions.whatif_sets import Measurement, SetComparison, class_table
from core.editing.net_effect import NO_CONTROL
from core.editing.whatif import WhatIf, WhatIfEstimator
from core.maml.evaluation import Interval
from core.ui.charts.common import CONFIG
from core.ui.charts.edit import Dot, edit_figure
from core.ui.edit.results import NET_NOTE, direction, in_points
from core.ui.ranking.panel import newest_evaluation
from core.ui.shell.context import Context
from core.ui.shell.guard import show_error
from core.ui.shell.text import count, minute_of, plain
from core.ui.whatif.panel import INTERVAL_NOTE, show_tasks

_METHOD_WORDS = {"retrain": "retrained", "finetune": "fine-tuned"}
NOT_MEASURED = "not measured until retrained"


def _row(one: SetComparison) -> dict[str, str]:
    estimate = one.estimate
    return {
        "set": one.named.name,
        "changes": one.named.changes.words,
        "net effect, estimated": in_points(estimate.accuracy_change) if estimate else "",
        "tasks better / worse, estimated": f"{estimate.better} / {estimate.worse}" if estimate else "",
        "net effect, retrained": _measured_words(one.measurements.get("retrain"), NOT_MEASURED),
        "net effect, fine-tuned": _measured_words(one.measurements.get("finetune"), "not measured"),
        "reviewer": one.named.who,
        "when (UTC)": minute_of(one.named.at),
        "note": one.named.note,
    }


def _measured_words(one: Measurement | None, unmeasured: str) -> str:
    if one is None:
        return unmeasured
    gross = f"{NO_CONTROL}; {in_points(one.accuracy_change)} from the unedited model"
    effect = gross if one.net_effect is None else in_points(one.net_effect)
    tasks = "" if one.better is None else f", tasks {one.better} better / {one.worse} worse"
    return f"{effect}{tasks}"


def show_sets(context: Context, estimator: WhatIfEstimator | None, compared: Sequence[SetComparison]) -> None:
    """Show the sets side by side."""
    st.dataframe(pd.DataFrame(map(_row, compared)), hide_index=True, key="sets_table")
    for one in compared:
        if one.fault is not None:
            show_error(one.fault)
    _chart(context, estimator, compared)
    estimates = {one.named.name: one.estimate for one in compared if one.estimate is not None}
    if not estimates or estimator is None:
        return
    residuals = ", ".join(f"{plain(name)}: {estimate.residual:.0%}" for name, estimate in estimates.items())
    st.caption(
        "Filled, solid: measured. Hollow, dotted: estimated by a linear edit with a stored curvature basis "
        f"(rank {estimator.report['rank']}; residuals of the solves: {residuals}). {NET_NOTE} {INTERVAL_NOTE}"
    )
    left, right = st.columns(2, gap="large")
    with left:
        _classes(compared)
    with right:
        _tasks(estimates)


def _chart(context: Context, estimator: WhatIfEstimator | None, compared: Sequence[SetComparison]) -> None:
    unedited = estimator.unedited.mean_accuracy if estimator is not None else None
    if unedited is None and (evaluated := newest_evaluation(context)) is not None:
        unedited = Interval(**evaluated.json("summary.json")["accuracy"])
    if unedited is None:
        return
    dots = [Dot("Unedited model", unedited, None)]
    for one in compared:
        if (estimate := one.estimate) is not None:
            label = f"{one.named.name} · estimate"
            dots.append(Dot(label, estimate.accuracy, estimate.accuracy_change, estimate=True))
        for method, measured in one.measurements.items():
            label = f"{one.named.name} · {_METHOD_WORDS[method]}"
            dots.append(Dot(label, measured.accuracy, measured.net_effect))
    if len(dots) > 1:
        st.plotly_chart(edit_figure(dots), config=CONFIG, key="sets_chart")


def _classes(compared: Sequence[SetComparison]) -> None:
    st.markdown("**Accuracy by class, estimated, %**")
    found = class_table(compared)
    names = list(found.columns[2:])
    found[names] = 100 * found[names]
    columns = {name: st.column_config.NumberColumn(format="%.1f") for name in names}
    columns["rows"] = st.column_config.NumberColumn("images", help="Query images of held-out tasks.")
    st.dataframe(found, hide_index=True, height=390, column_config=columns, key="sets_classes")


def _tasks(estimates: dict[str, WhatIf]) -> None:
    st.markdown("**Held-out tasks that gain and lose most, estimated**")
    name = st.selectbox("Set", list(estimates), key="sets_tasks_of", label_visibility="collapsed")
    estimate = estimates[name]
    show_tasks(estimate, key="sets_tasks")
    same = len(estimate.tasks) - estimate.better - estimate.worse
    st.caption(
        f"{plain(name)}: accuracy rises on {count(estimate.better, 'task')}, falls on {estimate.worse} and is "
        f"unchanged on {same}; overall {direction(estimate.accuracy_change)}."
    )
