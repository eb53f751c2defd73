"""The curve of a training: live while it runs, and that of a trained model with the step that was kept."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.actions.train import kept_step_text
from core.checkpoints.model import Model
from core.maml.training import ADAM_STAGE, read_history
from core.ui.charts.common import CONFIG
from core.ui.charts.training import training_curve
from core.ui.shell.guard import fragment
from core.ui.shell.jobs import is_running, jobs_of
from core.ui.shell.text import plain
from core.workspace.workspace import library_jobs

_SECONDS = 2.0  # a training reports about 20 times


def live_curve() -> None:
    """Draw the curve of the training that runs, if one does."""
    if is_running(library_jobs(), "train"):
        _live()


@fragment("The training curve", run_every=_SECONDS)
def _live() -> None:
    for job in jobs_of(library_jobs(), "train"):
        if job.status() == "running" and "--dry-run" not in job.args:
            history, state = read_history(Path(job.args[job.args.index("--out") + 1])), job.progress()
            steps = max((entry["done"] for entry in history if entry["phase"] == "adam"), default=0)
            if state is not None and state.stage == ADAM_STAGE:  # from the beginning the axis ends at the last step
                steps = max(steps, state.total)
            if history:
                st.plotly_chart(training_curve(history, steps), config=CONFIG, key=f"curve-{job.id}")
            else:
                st.caption("The training curve appears after the first measurement.")


def model_curve(name: str, model: Model) -> None:
    """Draw the curve of the training of a model of that name, if its metadata has one."""
    history = [entry for entry in model.metadata.get("history", []) if entry.get("phase") == "adam"]
    if len(history) < 2:
        return
    with st.expander(f"Training curve of {plain(name)}"):
        if text := kept_step_text(model):
            st.caption(f"Training {text}.")
        steps = model.metadata["training"]["iterations"]
        kept = model.metadata["report"].get("kept_step")
        st.plotly_chart(training_curve(history, steps, kept), config=CONFIG, key="load_curve")
