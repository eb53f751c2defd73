"""Draw the controls that start a ranking."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.actions.compute import Compute
from core.actions.evaluate import KIND, cache_key
from core.influence.methods import DEFAULT
from core.influence.settings import SELF_INFLUENCE
from core.ui.ranking.method_panel import choose_method
from core.ui.shell.context import Context, choose_ranking, table
from core.ui.shell.guard import show_error
from core.ui.shell.jobs import job_panel, start, start_button
from core.ui.trust.panel import trust_panel
from core.workspace.runs import Run

_MAX_OPTIONS = 500
_TARGETS = ("All held-out tasks", "Some held-out tasks", "One query image")


def newest_evaluation(context: Context) -> Run | None:
    """Return the newest evaluation of the present problem, or None."""
    return context.workspace.runs.find(KIND, cache_key(context.project, Compute()))


def rank_panel(context: Context) -> None:
    """Draw the controls for the method and the evaluation target, start the ranking, and show its progress."""
    evaluated = newest_evaluation(context)
    with st.container(border=True):
        st.markdown("**Rank the training data by influence**")
        above = st.container()
        with st.expander("Method settings"):
            method, args, fault = choose_method(context)
        if fault is not None:
            show_error(fault)
        title, ready = f"Rank by {method}", fault is None
        with above:
            if method == SELF_INFLUENCE:
                st.caption(
                    "Self-influence is how much removing an item raises its own loss, so it needs no target. "
                    "The most suspicious items come first."
                )
            else:
                kind = st.segmented_control(
                    "Evaluation target", _TARGETS, default=_TARGETS[0], key="rank_target", required=True
                )
                target = _target(kind or _TARGETS[0], evaluated)  # a browser can send none
                by = "" if method == DEFAULT else f" by {method}"
                title, args = f"Rank on {target}{by}", ["--target", target or "all", *args]
                ready = ready and target is not None
        if st.button("Rank", type="primary", disabled=not ready, key="rank_start"):
            start(context, title, ["rank", *args])
        job_panel(context.workspace.jobs, "rank")


def rank_now(context: Context, *, key: str) -> None:
    """Draw a button that ranks on all held-out tasks with the default method, and the progress."""
    start_button(context, "Rank now", "Rank on all", ["rank", "--target", "all"], key=key, primary=True)
    job_panel(context.workspace.jobs, "rank")


def require_ranking(context: Context, what: str) -> Run:
    """Return the ranking chosen in the sidebar and show how far it can be trusted.

    If there is none, say that ``what`` ("tasks" or "images") is not ranked, draw the controls and stop the page.
    """
    run = choose_ranking(context)
    if run is None:
        st.info(f"The training {what} are not ranked yet.")
        rank_panel(context)
        st.stop()
    trust_panel(context, run)
    return run


def _target(kind: str, evaluated: Run | None) -> str | None:
    if kind == _TARGETS[0]:
        return "all"
    if evaluated is None:
        st.caption("Evaluate the model first, to see which held-out tasks and images fail.")
        return None
    if kind == _TARGETS[1]:
        heldout = table(evaluated, "heldout.parquet").set_index("task_id")
        accuracy = heldout["accuracy"].sort_values(kind="stable")
        chosen = st.multiselect(
            "Held-out tasks, worst first",
            accuracy.index.tolist(),
            format_func=lambda task: f"{task} · accuracy {accuracy[task]:.0%}",
            key="rank_tasks",
        )
        return ",".join(chosen) or None
    labels = misclassified_labels(table(evaluated, "rows.parquet"))
    return st.selectbox(
        "Misclassified query image, highest loss first",
        list(labels)[:_MAX_OPTIONS],
        format_func=labels.__getitem__,
        key="rank_image",
    )


def misclassified_labels(rows: pd.DataFrame) -> dict[str, str]:
    """Return the misclassified query images of an evaluation as ``TASK/IMAGE`` with a label, highest loss first."""
    wrong = rows[rows["predicted"] != rows["label"]].sort_values("loss", ascending=False, kind="stable")
    return {
        f"{row['task_id']}/{row['image_id']}": f"{row['image_id']} in {row['task_id']} · is {row['class']}, "
        f"predicted as {row['predicted_class']} · loss {row['loss']:.2f}"
        for row in wrong.to_dict("records")
    }
