"""Show estimates of the effect of the present changes at every rerun, once they are prepared."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.actions.compute import Compute
from core.actions.preparation import find_preparation, open_estimator, preparation_seconds, prepare_bytes
from core.editing.whatif import WhatIf, WhatIfEstimator
from core.runtime.progress import format_duration
from core.tasks.changes import Changes
from core.ui.edit.results import direction, in_points
from core.ui.shell.context import RUN_HASH, Context
from core.ui.shell.guard import report_errors
from core.ui.shell.jobs import is_running, job_panel, start
from core.ui.shell.text import count
from core.workspace.runs import Run
from core.workspace.workspace import Workspace

INTERVAL_NOTE = (
    "Intervals cover the variation over held-out tasks, not the error of the estimate: only retraining measures it."
)
_TABLE_PX = 246
_COLUMNS = {
    "before": st.column_config.NumberColumn("Accuracy before", format="%.1f %%"),
    "after": st.column_config.NumberColumn("After (estimate)", format="%.1f %%"),
    "change": st.column_config.NumberColumn("Change, points", format="%+.1f"),
    "loss": st.column_config.NumberColumn("Change of loss, nats", format="%+.4f"),
}
_ENDS = 5
"""Number of held-out tasks shown of those that gain and of those that lose."""


def live_estimate(context: Context, changes: Changes) -> None:
    """Show the estimate for ``changes``, or the button that prepares estimates."""
    with report_errors("The live estimate"):
        estimator = live_estimator(context)
        if estimator is None:
            prepare_panel(context, "Afterwards the effect of every decision is estimated here immediately.")
        else:
            _show(estimator.changes(changes), int(estimator.report["rank"]))


def live_estimator(context: Context) -> WhatIfEstimator | None:
    """Return the estimator for the present problem; None where nothing is prepared.

    Raises:
        UserError: the prepared data are damaged.
    """
    run = find_preparation(context.workspace, Compute())
    return None if run is None else _estimator(run, context.workspace)


@st.cache_resource(max_entries=2, show_spinner="Loading live estimates", hash_funcs=RUN_HASH)
def _estimator(run: Run, _workspace: Workspace) -> WhatIfEstimator:
    """Open the estimator once for all sessions; another problem has another run."""
    return open_estimator(_workspace, Compute())


def estimate_words(residual: float, rank: int) -> str:
    """Return how an estimate was solved."""
    return f"stored curvature basis of rank {rank}, residual of the solve {residual:.0%}"


def _show(found: WhatIf, rank: int) -> None:
    with st.container(border=True, key="edit_live"):
        title, accuracy, loss = st.columns([2, 3, 3], vertical_alignment="center")
        title.markdown("**Live estimate**  \n:gray-badge[estimate, not measured]")
        accuracy.markdown(
            f"Held-out accuracy ≈ *{in_points(found.accuracy_change)}*  \n{direction(found.accuracy_change)}"
        )
        loss.markdown(
            f"Held-out loss ≈ *{found.loss_change.text('+.4f')}*  \n"
            f"{found.predicted_loss_change:+.4f} predicted to first order"
        )
        with st.expander("By class, and the held-out tasks that gain and lose most (estimates)"):
            left, right = st.columns(2, gap="large")
            rows = [
                (each.name, each.rows, 100 * each.before, 100 * each.after, 100 * (each.after - each.before))
                for each in found.classes
            ]
            frame = pd.DataFrame(rows, columns=["class", "images", "before", "after", "change"])
            left.dataframe(frame, hide_index=True, height=_TABLE_PX, column_config=_COLUMNS)
            with right:
                show_tasks(found)
        st.caption(
            f"The result of a linear edit compared with the unedited model, paired by held-out task "
            f"({estimate_words(found.residual, rank)}; step {found.relative_step:.1%} of the parameter norm; "
            f"{1000 * found.seconds:.0f} ms). {INTERVAL_NOTE}"
        )


def show_tasks(found: WhatIf, *, key: str | None = None) -> None:
    """Show the held-out tasks that gain most, then those that lose most, with accuracy in per cent."""
    better = [task for task in found.tasks if task.loss_change < 0][:_ENDS]
    worse = [task for task in found.tasks if task.loss_change > 0][-_ENDS:][::-1]
    rows = [
        (word, task.task_id, 100 * task.before, 100 * task.after, task.loss_change)
        for word, tasks in (("gains", better), ("loses", worse))
        for task in tasks
    ]
    frame = pd.DataFrame(rows, columns=["held-out task", "id", "before", "after", "loss"])
    st.dataframe(frame, hide_index=True, height=_TABLE_PX, column_config=_COLUMNS, key=key)


def prepare_panel(context: Context, promise: str, key: str = "edit_prepare") -> None:
    """Draw a button that prepares estimates, with its cost, progress, and what will be available afterwards."""
    running = is_running(context.workspace.jobs, "whatif")
    button, note = st.columns([2, 6], vertical_alignment="center")
    if button.button("Prepare live estimates", disabled=running, key=key, width="stretch"):
        start(context, "Prepare live estimates", ["whatif", "--prepare"])
    if not running:
        gb = prepare_bytes(context.project, Compute()) / 1e9
        seconds = preparation_seconds(context.workspace, context.project, Compute())
        tasks = count(len(context.project.tasks.train), "task")
        duration = f"a few minutes for {tasks}" if seconds is None else f"about {format_duration(seconds)}"
        note.caption(f"{promise} Needed once: {duration}, {gb:.1f} GB of disk space.")
    job_panel(context.workspace.jobs, "whatif")
