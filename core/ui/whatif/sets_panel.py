"""Show named what-if sets side by side: table, chart, classes and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
import streamlit as st

from core.actions.compute import Compute
from core.actions.whatif_sets import Measurement, SetComparison, class_table, compare
from core.editing.whatif import TaskChange, WhatIfEstimator
from core.maml.evaluation import Interval
from core.ui.charts.edit import Dot, edit_figure
from core.ui.charts.scores import CONFIG
from core.ui.edit.results import direction, in_points
from core.ui.ranking.panel import newest_evaluation
from core.ui.shell.context import Context, show_error, table
from core.ui.shell.text import count, plain

WAYS = {"retrain": "retrained", "finetune": "fine-tuned"}
NOT_MEASURED = "not measured until retrained"
_ENDS = 5


def compared_sets(context: Context, instant: WhatIfEstimator | None, names: Sequence[str]) -> list[SetComparison]:
    """Return the sets with their estimates and measurements."""
    return compare(context.workspace, instant, Compute(), names, table)


def overview_table(compared: Sequence[SetComparison]) -> pd.DataFrame:
    """Return one row per set, as text."""
    rows = []
    for one in compared:
        guess = one.estimate
        rows.append(
            {
                "set": one.named.name,
                "what changes": one.named.changes.words,
                "accuracy, estimated": in_points(guess.accuracy_change) if guess else "",
                "tasks better / worse, estimated": f"{guess.better} / {guess.worse}" if guess else "",
                "accuracy, retrained": _measured_words(one.measurements.get("retrain")) or NOT_MEASURED,
                "accuracy, fine-tuned": _measured_words(one.measurements.get("finetune")) or "not measured",
                "who": one.named.who,
                "when (UTC)": one.named.at[:16].replace("T", " "),
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
        if (guess := one.estimate) is not None:
            label = f"{one.named.name} · estimate"
            found.append(Dot(label, asdict(guess.accuracy), asdict(guess.accuracy_change), estimate=True))
        for way, measured in one.measurements.items():
            label = f"{one.named.name} · {WAYS[way]}"
            found.append(Dot(label, asdict(measured.accuracy), asdict(measured.accuracy_change)))
    return found


def show_sets(context: Context, instant: WhatIfEstimator | None, compared: Sequence[SetComparison]) -> None:
    """Show the sets side by side."""
    st.dataframe(overview_table(compared), hide_index=True, key="sets_table")
    for one in compared:
        if one.fault is not None:
            show_error(one.fault)
    _chart(context, instant, compared)
    estimated = [one for one in compared if one.estimate is not None]
    if not estimated or instant is None:
        return
    residuals = ", ".join(f"{plain(one.named.name)}: {one.estimate.residual:.0%}" for one in estimated if one.estimate)
    st.caption(
        "Filled, solid: measured. Hollow, dotted: an estimate, by a linear edit with "
        f"a kept basis of the curvature (rank {instant.report['rank']}; residual of the solve {residuals}). "
        "Intervals are over held-out tasks, paired by task for changes, and do not hold the error of the estimate: "
        "only retraining measures it."
    )
    left, right = st.columns(2, gap="large")
    with left:
        _classes(estimated)
    with right:
        _tasks(estimated)


def _chart(context: Context, instant: WhatIfEstimator | None, compared: Sequence[SetComparison]) -> None:
    unedited = instant.unedited.mean_accuracy if instant is not None else None
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
    named = {one.named.name: one for one in compared}
    name = st.selectbox("Of the set", list(named), key="sets_tasks_of", label_visibility="collapsed")
    one = named.get(name) or compared[0]
    assert one.estimate is not None
    estimate = one.estimate
    tasks = estimate.tasks
    shown = [*_rows("gains", tasks[:_ENDS]), *_rows("loses", tasks[-_ENDS:][::-1])]
    frame = pd.DataFrame(shown, columns=["", "task", "before", "after", "loss"])
    percent = "%.0f %%"
    st.dataframe(
        frame,
        hide_index=True,
        height=320,
        column_config={
            "before": st.column_config.NumberColumn("accuracy before", format=percent),
            "after": st.column_config.NumberColumn("after (estimate)", format=percent),
            "loss": st.column_config.NumberColumn("change of loss", format="%+.4f"),
        },
        key="sets_tasks",
    )
    st.caption(
        f"{plain(one.named.name)}: {count(estimate.better, 'task')} better, {estimate.worse} worse by accuracy, "
        f"{len(tasks) - estimate.better - estimate.worse} the same; {direction(estimate.accuracy_change)} on the whole."
    )


def _rows(word: str, tasks: Sequence[TaskChange]) -> list[tuple[str, str, float, float, float]]:
    right = [task for task in tasks if (task.loss_change < 0) == (word == "gains") and task.loss_change]
    return [(word, task.task_id, 100 * task.before, 100 * task.after, task.loss_change) for task in right]
