"""Draw a button that starts a job, and a panel with its progress."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.runtime.errors import UserError
from core.runtime.program import with_workspace
from core.runtime.progress import format_duration
from core.ui.shell.context import Context
from core.ui.shell.guard import fragment, show_error
from core.ui.shell.text import plain
from core.workspace.jobs import Job, Jobs


def start_button(
    context: Context, label: str, title: str, args: Sequence[str], *, key: str, primary: bool = False
) -> None:
    """Draw a button that starts ``tasklens <args>`` on the workspace as a separate process."""
    if st.button(label, key=key, type="primary" if primary else "secondary"):
        start(context, title, args)


def start(context: Context, title: str, args: Sequence[str]) -> None:
    """Start ``tasklens <args>`` on the workspace as a separate process and rerun the page."""
    context.workspace.jobs.start(title, with_workspace(args, str(context.workspace.folder)))
    st.rerun()


def jobs_of(jobs: Jobs, command: str) -> list[Job]:
    """Return the jobs of a command (``review queue``) or a group of commands (``review``), newest first."""
    words = tuple(command.split())
    return [job for job in jobs.all() if job.args[: len(words)] == words]


def is_running(jobs: Jobs, command: str) -> bool:
    """Return whether a job of a command or a group of commands is running."""
    return any(job.status() == "running" for job in jobs_of(jobs, command))


def stopped_job(jobs: Jobs, command: str) -> Job | None:
    """Return the newest job of a command if it can be resumed."""
    newest = next(iter(jobs_of(jobs, command)), None)
    return newest if newest and newest.status() in ("cancelled", "failed", "lost") else None


def job_panel(jobs: Jobs, command: str) -> None:
    """Show progress, time left and a cancel button for running jobs, and why the newest job failed, if it did.

    The page is run again once a job ends.
    """
    if is_running(jobs, command):
        _live(jobs, command)
        return
    for job in jobs_of(jobs, command)[:1]:
        status = job.status()
        if status in ("failed", "lost"):
            reason = job.error() or "its process no longer exists"
            fix = "" if job.is_refused() else "Start it again; finished steps are kept."
            show_error(UserError(f"{job.title} did not finish: {reason}", fix))
        elif status == "cancelled":
            st.info(f"{plain(job.title)} was cancelled. Start it again to resume.")


@fragment("The progress of the job", run_every=1.0)
def _live(jobs: Jobs, command: str) -> None:
    running = [job for job in jobs_of(jobs, command) if job.status() == "running"]
    if not running:
        st.rerun()
    for job in running:
        state = job.progress()
        share, text = 0.0, "starting"
        if state is not None:
            share = min(1.0, state.done / state.total) if state.total else 0.0
            left = f" · about {format_duration(state.left)} left in this stage" if state.left is not None else ""
            note = f" · {state.note}" if state.note else ""
            text = f"{state.stage} {state.done}/{state.total}{left}{note}"
        bar, cancel = st.columns([6, 1], vertical_alignment="bottom")
        bar.progress(share, f"**{plain(job.title)}** — {plain(text)}")
        if cancel.button("Cancel", key=f"cancel-{job.id}"):
            jobs.cancel(job.id)
    st.caption("Runs in the background: you can leave this page or close the browser.")
