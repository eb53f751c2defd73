"""Show named what-if sets side by side: table, chart, classes and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
import streamlit as st

from core.actions.compute import Compute
from core.actions.whatif_sets import Measurement, SetComparison, class_table, compare
from core.editing.whatif import WhatIfEstimator
from core.maml.evaluation import Interval
from core.ui.charts.common import CONFIG
from core.ui.charts.edit import Dot, edit_figure
from core.ui.edit.results import direction, in_points
from core.ui.ranking.panel import newest_evaluation
from core.ui.shell.context import Context, show_error, table
from core.ui.shell.text import count, minute_of, plain
from core.ui.whatif.panel import INTERVAL_NOTE, show_tasks

_METHOD_WORDS = {"retrain": "retrained", "finetune": "fine-tuned"}
NOT_MEASURED = "not measured until retrained"


def compare_sets(context: Context, estimator: WhatIfEstimator | None, names: Sequence[str]) -> list[SetComparison]:
    """Return the sets with their estimates and measurements."""
    return compare(context.workspace, estimator, Compute(), names, table)


def overview_table(compared: Sequence[SetComparison]) -> pd.DataFrame:
    """Return one row per set, as text."""
    rows = []
    for one in compared:
        estimate = one.estimate
        rows.append(
            {
                "set": one.named.name,
                "changes": one.named.changes.words,
                "accuracy, estimated": in_points(estimate.accuracy_change) if estimate else "",
                "tasks better / worse, estimated": f"{estimate.better} / {estimate.worse}" if estimate else "",
                "accuracy, retrained": _measured_words(one.measurements.get("retrain")) or NOT_MEASURED,
                "accuracy, fine-tuned": _measured_words(one.measurements.get("finetune")) or "not measured",
                "reviewer": one.named.who,
                "when (UTC)": minute_of(one.named.at),
                "note": one.named.note,
            }
        )
    return pd.DataFrame(rows)


def _measured_words(one: Measurement | None) -> str:
    if one is None:
        return ""
    tasks = "" if one.better is None else f"; tasks {one.better} better / {one.worse} worse"
    return in_points(one.accuracy_change) + tasks


def dots(unedited: Interval, compared: Sequence[SetComparison]) -> list[Dot]:
    """Return dots for the unedited model and for each set's estimate and measurements."""
    found = [Dot("Unedited model", asdict(unedited), None)]
    for one in compared:
        if (estimate := one.estimate) is not None:
            label = f"{one.named.name} · estimate"
            found.append(Dot(label, asdict(estimate.accuracy), asdict(estimate.accuracy_change), estimate=True))
        for method, measured in one.measurements.items():
            label = f"{one.named.name} · {_METHOD_WORDS[method]}"
            found.append(Dot(label, asdict(measured.accuracy), asdict(measured.accuracy_change)))
    return found


def show_sets(context: Context, estimator: WhatIfEstimator | None, compared: Sequence[SetComparison]) -> None:
    """Show the sets side by side."""
    st.dataframe(overview_table(compared), hide_index=True, key="sets_table")
    for one in compared:
        if one.fault is not None:
            show_error(one.fault)
    _chart(context, estimator, compared)
    estimated = [one for one in compared if one.estimate is not None]
    if not estimated or estimator is None:
        return
    residuals = ", ".join(f"{plain(one.named.name)}: {one.estimate.residual:.0%}" for one in estimated if one.estimate)
    st.caption(
        "Filled, solid: measured. Hollow, dotted: estimated by a linear edit with a stored curvature basis "
        f"(rank {estimator.report['rank']}; residuals of the solves: {residuals}). Changes are paired by task. "
        f"{INTERVAL_NOTE}"
    )
    left, right = st.columns(2, gap="large")
    with left:
        _classes(estimated)
    with right:
        _tasks(estimated)


def _chart(context: Context, estimator: WhatIfEstimator | None, compared: Sequence[SetComparison]) -> None:
    unedited = estimator.unedited.mean_accuracy if estimator is not None else None
    if unedited is None and (evaluated := newest_evaluation(context)) is not None:
        unedited = Interval(**evaluated.json("summary.json")["accuracy"])
    if unedited is None:
        return
    shown = dots(unedited, compared)
    if len(shown) > 1:
        st.plotly_chart(edit_figure(shown), config=CONFIG, key="sets_chart")


def _classes(compared: Sequence[SetComparison]) -> None:
    st.markdown("**Accuracy by class, estimated, %**")
    found = class_table(compared)
    names = list(found.columns[2:])
    found[names] = 100 * found[names]
    columns = {name: st.column_config.NumberColumn(format="%.1f") for name in names}
    columns["rows"] = st.column_config.NumberColumn("images", help="Query images of held-out tasks.")
    st.dataframe(found, hide_index=True, height=390, column_config=columns, key="sets_classes")


def _tasks(compared: Sequence[SetComparison]) -> None:
    st.markdown("**Held-out tasks that gain and lose most, estimated**")
    by_name = {one.named.name: one.estimate for one in compared}
    name = st.selectbox("Set", list(by_name), key="sets_tasks_of", label_visibility="collapsed")
    estimate = by_name[name]
    assert estimate is not None
    show_tasks(estimate, key="sets_tasks")
    same = len(estimate.tasks) - estimate.better - estimate.worse
    st.caption(
        f"{plain(name)}: accuracy rises on {count(estimate.better, 'task')}, falls on {estimate.worse} and is "
        f"unchanged on {same}; overall {direction(estimate.accuracy_change)}."
    )
