"""The live estimate: what the present removal set would do, at once at every rerun, once that was prepared."""

from __future__ import annotations

import streamlit as st

from core.actions.compute import Compute
from core.actions.preparation import prepare_bytes, prepare_seconds, prepared
from core.actions.whatif import Instant, WhatIf
from core.progress import spoken_seconds
from core.tasks.changes import Changes
from core.ui.context import Context, shown_errors
from core.ui.edit_results import direction, in_points
from core.ui.jobs import job_panel, jobs_of, start
from core.ui.ranking import newest_evaluation
from core.ui.text import count
from core.workspace.workspace import Workspace

PREPARE = ["whatif", "--prepare"]


def live_estimate(context: Context, removal: Changes) -> None:
    """The estimate for ``removal``, or the button that prepares for it."""
    run = prepared(context.workspace, Compute())
    with shown_errors():
        if run is None:
            _prepare(context)
        else:
            instant = _instant(str(run.folder), context.workspace)
            _show(instant.removal(removal), int(instant.report["rank"]))


@st.cache_resource(max_entries=2, show_spinner="Opening the live estimate")
def _instant(run_folder: str, _workspace: Workspace) -> Instant:
    """Opened once for all sessions; another problem has another run."""
    return Instant(_workspace, Compute())


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
        st.caption(
            f"Against the unedited model, paired by held-out task; what a linear edit by a kept basis of the curvature "
            f"gives (rank {rank}, residual of the solve {found.residual:.0%}; step {found.relative_step:.1%} of the "
            f"parameters; {1000 * found.seconds:.0f} ms). The intervals are over held-out tasks and do not hold the "
            "error of the estimate. Only retraining measures it."
        )


def _prepare(context: Context) -> None:
    running = any(job.status() == "running" for job in jobs_of(context.workspace.jobs, "whatif"))
    button, note = st.columns([2, 6], vertical_alignment="center")
    if button.button("Prepare live estimates", disabled=running, key="edit_prepare", width="stretch"):
        start(context, "Prepare live estimates", PREPARE)
        st.rerun()
    if not running:
        gb = prepare_bytes(context.project, Compute()) / 1e9
        note.caption(
            f"Then every removal set is estimated here as soon as it is marked. Once, {_predicted(context)}, "
            f"and {gb:.1f} GB of disk."
        )
    job_panel(context.workspace.jobs, "whatif")


def _predicted(context: Context) -> str:
    """How long the preparation takes, at the pace of the evaluation's gradients."""
    evaluated, tasks = newest_evaluation(context), len(context.project.tasks.train)
    seconds = evaluated.json("provenance.json")["seconds"].get("stationarity") if evaluated else None
    if not seconds:
        return f"some minutes for {count(tasks, 'task')}"
    return f"about {spoken_seconds(prepare_seconds(context.project, seconds / tasks, Compute()))}"
