"""Draw the controls that measure how well rankings predict retraining."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import streamlit as st

from core.actions.evidence import EvidenceSettings, predicted_seconds
from core.evidence.methods import ALL_METHODS, LIBRARIES, missing
from core.evidence.subsets import subset_masks
from core.runtime.errors import UserError
from core.runtime.progress import format_duration
from core.runtime.settings import arguments_of
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.background import Worker
from core.ui.shell.context import Context
from core.ui.shell.guard import fragment, show_error
from core.ui.shell.jobs import is_running, job_panel, start, stopped_job
from core.ui.shell.text import count, plain
from core.ui.trust.evidence_results import KIND, PROTOCOLS, STARTS
from core.workspace.workspace import Workspace

TIMING = "Measuring how long they take on this machine …"
_TRAJECTORY = ("tracin", "task-if-path")


def evidence_panel(context: Context) -> list[str]:
    """Draw the controls for the comparison, start it and show its progress; return its command."""
    with st.container(border=True):
        st.markdown("**Measure how well rankings predict retraining**")
        try:
            settings, fault = _settings(context), None
            _check(context, settings)
        except UserError as error:
            settings, fault = EvidenceSettings(), error
        args = ["evidence", *arguments_of(settings, always=("methods",))]
        if fault is not None:
            show_error(fault)
        else:
            _effort(context, settings)
        running = is_running(context.workspace.jobs, KIND)
        measure, resume, _ = st.columns([2, 2, 4])
        title = f"Evidence for {count(len(settings.methods), 'method')}"
        if measure.button(
            "Measure", type="primary", disabled=running or fault is not None, key="trust_start", width="stretch"
        ):
            start(context, title, args)
        stopped = stopped_job(context.workspace.jobs, KIND)
        if stopped and resume.button("Resume", key="trust_resume", width="stretch"):
            start(context, stopped.title, stopped.args[:1] + stopped.args[3:])  # the workspace is inserted again
        job_panel(context.workspace.jobs, KIND)
    return args


def _settings(context: Context) -> EvidenceSettings:
    """Draw the controls and return their values; raise UserError if no method is chosen."""
    descriptions = "\n".join(f"- **{plain(name)}** {plain(text)}" for name, text in ALL_METHODS.items())
    chosen = widgets.several(
        st, EvidenceSettings, "methods", key="trust_methods", choices=list(ALL_METHODS), help=descriptions
    )
    one, two, three = st.columns([3, 1.5, 1.5], vertical_alignment="bottom")
    truth = widgets.segments(one, EvidenceSettings, "truth", key="trust_truth", format_func=PROTOCOLS.__getitem__)
    subset_count = widgets.number(two, EvidenceSettings, "subsets", key="trust_subsets")
    seeds = widgets.number(three, EvidenceSettings, "seeds", key="trust_seeds")
    one, two, three = st.columns([3, 1.5, 1.5], vertical_alignment="bottom")
    retrain = widgets.segments(one, EvidenceSettings, "retrain", key="trust_retrain", format_func=STARTS.__getitem__)
    iterations = widgets.number(two, EvidenceSettings, "iterations", key="trust_iterations")
    heldout_count = len(context.project.tasks.heldout)
    default = min(EvidenceSettings.targets, heldout_count)
    targets = widgets.number(
        three, EvidenceSettings, "targets", key="trust_targets", value=default, maximum=heldout_count
    )
    return EvidenceSettings(
        tuple(name for name in ALL_METHODS if name in chosen),  # in a fixed order, so that equal choices share a run
        truth,
        subset_count,
        seeds,
        retrain,
        iterations,
        EvidenceSettings.targets if targets == default else targets,
    )


def _check(context: Context, settings: EvidenceSettings) -> None:
    """Raise UserError for settings that would fail later."""
    subset_masks(settings.truth, len(context.project.tasks.train), settings.subsets)
    settings.start.settings(context.project.model, 0)
    for name in settings.methods:
        if missing([name]):
            raise UserError(
                f"The method {name} needs the package {LIBRARIES[name]}, which is not installed.",
                "pip install -r requirements-baselines.txt, or leave the method out.",
            )
    if any(name in _TRAJECTORY for name in settings.methods):
        context.workspace.trajectory()


def _effort(context: Context, settings: EvidenceSettings) -> None:
    number = count(settings.subsets * settings.seeds + settings.members, "retraining")
    key = str(context.workspace.folder), context.project.hashes["model"], settings
    seconds = _seconds(*key)
    if not seconds.done():
        _wait_for_timing(number, seconds)
        return
    if error := seconds.exception():
        _seconds.clear(*key)  # the next rerun tries again
        raise error
    known = seconds.result()
    pace = "" if known is None else f", about {format_duration(known)} on this machine"
    st.caption(
        f"{number}{pace}, plus the time of the methods themselves. Earlier retrainings are reused, and an interrupted "
        "measurement resumes where it stopped."
    )


@fragment("The predicted duration", run_every=1.0)
def _wait_for_timing(number: str, seconds: Future[float | None]) -> None:
    if seconds.done():
        st.rerun()
    st.caption(f"{number}. {TIMING}")


@st.cache_resource(max_entries=64, show_spinner=False)
def _seconds(workspace: str, model: str, settings: EvidenceSettings) -> Future[float | None]:
    """Return the predicted seconds, computed for all sessions by a thread, as no page must wait for the trial."""
    return _TRIALS.submit(predicted_seconds, Workspace(Path(workspace)), settings)


_TRIALS = Worker("trial", "The predicted duration")
"""A single worker, as two trials at once would distort each other's timings."""
