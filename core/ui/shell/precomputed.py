"""Say that a result came with a demo, and offer to compute it here."""

from __future__ import annotations

import streamlit as st

from core.ui.shell.context import Context
from core.ui.shell.jobs import is_running, job_panel, jobs_of, start
from core.ui.shell.text import count, plain
from core.workspace.runs import Run

_COMMAND = "rerun"


def precomputed_note(context: Context, *runs: Run) -> None:
    """Say which results of a page came with the demo, with buttons that compute them again, and show the progress."""
    shipped = [run for run in runs if run.is_precomputed]
    if len(shipped) > 1:
        with st.expander(f"Precomputed: {count(len(shipped), 'result')} came with the demo"):
            for run in shipped:
                _line(context, run)
    elif shipped:
        _line(context, shipped[0])
    jobs, ids = context.workspace.jobs, {run.id for run in runs}
    if any(ids.intersection(job.args) for job in jobs_of(jobs, _COMMAND)[:1]):
        job_panel(jobs, _COMMAND)


def origin(run: Run) -> str:
    """Return what the title of a result adds if it came with the demo, else nothing."""
    return " · precomputed" if run.is_precomputed else ""


def _line(context: Context, run: Run) -> None:
    words, button = st.columns([5, 1], vertical_alignment="center")
    words.caption(plain(f"Precomputed: {run.id} came with the demo, computed on {run.finished[:10]}."))
    busy = is_running(context.workspace.jobs, _COMMAND)
    why = "Wait until the other result is computed." if busy else "Compute this on your machine."
    if button.button("Run again", key=f"rerun_{run.id}", disabled=busy, help=why, width="stretch"):
        start(context, f"Compute {run.id} again", [_COMMAND, run.id])
