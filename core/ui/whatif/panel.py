"""Show estimates of the effect of the present changes at every rerun, once they are prepared."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.actions.compute import Compute
from core.actions.pace import preparation_seconds
from core.actions.preparation import find_preparation, prepare_bytes
from core.actions.whatif import open_estimator
from core.editing.whatif import WhatIf, WhatIfEstimator
from core.runtime.progress import format_duration
from core.tasks.changes import Changes
from core.ui.edit.results import direction, in_points
from core.ui.shell.context import Context, shown_errors
from core.ui.shell.jobs import job_panel, jobs_of, start
from core.ui.shell.text import count
from core.workspace.workspace import Workspace

PREPARE = ["whatif", "--prepare"]
_ENDS = 5
"""Number of held-out tasks shown of those that gain and of those that lose."""


def live_estimate(context: Context, changes: Changes) -> None:
    """Show the estimate for ``changes``, or the button that prepares estimates."""
    with shown_errors():
        instant = opened_instant(context)
        if instant is None:
            prepare_panel(context, "Then every set of changes is estimated here as soon as it is decided.")
        else:
            _show(instant.changes(changes), int(instant.report["rank"]))


def opened_instant(context: Context) -> WhatIfEstimator | None:
    """Return the estimator for the present problem; None where nothing is prepared.

    Raises:
        UserError: the prepared data are damaged.
    """
    run = find_preparation(context.workspace, Compute())
    return None if run is None else _instant(str(run.folder), context.workspace)


@st.cache_resource(max_entries=2, show_spinner="Opening the live estimate")
def _instant(run_folder: str, _workspace: Workspace) -> WhatIfEstimator:
    """Return the estimator, opened once for all sessions; another problem has another run."""
    return open_estimator(_workspace, Compute())


def estimate_words(residual: float, rank: int) -> str:
    """Return a sentence on how an estimate was solved."""
    return f"by a kept basis of the curvature, rank {rank}, residual of the solve {residual:.0%}"


def _show(found: WhatIf, rank: int) -> None:
    with st.container(border=True, key="edit_live"):
        title, accuracy, loss = st.columns([2, 3, 3], vertical_alignment="center")
        title.markdown("**Live estimate**  \n:gray-badge[estimate, not measured]")
        accuracy.markdown(
            f"Held-out accuracy ≈ *{in_points(found.accuracy_change)}*  \n{direction(found.accuracy_change)}"
        )
        change = found.loss_change
        loss.markdown(
            f"Held-out loss ≈ *{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]*  \n"
            f"{found.predicted_loss_change:+.4f} predicted to first order"
        )
        with st.expander("By class, and the held-out tasks that gain and lose most (estimates)"):
            left, right = st.columns(2, gap="large")
            left.dataframe(class_frame(found), hide_index=True, height=246, column_config=_CLASS_COLUMNS)
            right.dataframe(task_frame(found), hide_index=True, height=246, column_config=_TASK_COLUMNS)
        st.caption(
            f"Against the unedited model, paired by held-out task; what a linear edit gives "
            f"({estimate_words(found.residual, rank)}; step {found.relative_step:.1%} of the "
            f"parameters; {1000 * found.seconds:.0f} ms). The intervals are over held-out tasks and do not hold the "
            "error of the estimate. Only retraining measures it."
        )


def class_frame(found: WhatIf) -> pd.DataFrame:
    """Return the accuracy of held-out query images per class, in per cent.

    The columns are the accuracy before, the estimated accuracy after, and the change in points.
    """
    rows = [
        (one.name, one.rows, 100 * one.before, 100 * one.after, 100 * (one.after - one.before)) for one in found.classes
    ]
    return pd.DataFrame(rows, columns=["class", "images", "before", "after", "change"])


def task_frame(found: WhatIf) -> pd.DataFrame:
    """Return the held-out tasks that gain most, then those that lose most, with accuracy in per cent."""
    better = [task for task in found.tasks if task.loss_change < 0][:_ENDS]
    worse = [task for task in found.tasks if task.loss_change > 0][-_ENDS:][::-1]
    rows = [
        (word, task.task_id, 100 * task.before, 100 * task.after, task.loss_change)
        for word, tasks in (("gains", better), ("loses", worse))
        for task in tasks
    ]
    return pd.DataFrame(rows, columns=["held-out task", "id", "before", "after", "loss"])


_PERCENT = "%.1f %%"
_CLASS_COLUMNS = {
    "before": st.column_config.NumberColumn("Accuracy before", format=_PERCENT),
    "after": st.column_config.NumberColumn("After (estimate)", format=_PERCENT),
    "change": st.column_config.NumberColumn("Change, points", format="%+.1f"),
}
_TASK_COLUMNS = {
    "before": st.column_config.NumberColumn("Accuracy before", format=_PERCENT),
    "after": st.column_config.NumberColumn("After (estimate)", format=_PERCENT),
    "loss": st.column_config.NumberColumn("Change of loss", format="%+.4f"),
}


def prepare_panel(context: Context, promise: str, key: str = "edit_prepare") -> None:
    """Draw a button that prepares estimates, with its cost and progress.

    Args:
        promise: What will be available afterwards.
    """
    running = any(job.status() == "running" for job in jobs_of(context.workspace.jobs, "whatif"))
    button, note = st.columns([2, 6], vertical_alignment="center")
    if button.button("Prepare live estimates", disabled=running, key=key, width="stretch"):
        start(context, "Prepare live estimates", PREPARE)
        st.rerun()
    if not running:
        gb = prepare_bytes(context.project, Compute()) / 1e9
        note.caption(f"{promise} Once, {_predicted(context)}, and {gb:.1f} GB of disk.")
    job_panel(context.workspace.jobs, "whatif")


def _predicted(context: Context) -> str:
    """Return how long the preparation takes, at the pace of the evaluation's gradients."""
    seconds = preparation_seconds(context.workspace, context.project, Compute())
    if seconds is None:
        return f"some minutes for {count(len(context.project.tasks.train), 'task')}"
    return f"about {format_duration(seconds)}"
