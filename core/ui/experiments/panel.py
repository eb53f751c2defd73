"""Choosing an experiment, starting it, and watching it."""

from __future__ import annotations

import streamlit as st

from core.data.download import DOWNLOADABLE
from core.experiments.catalog import EXPERIMENTS, Experiment
from core.experiments.conduct import image_sets
from core.experiments.profiles import PROFILES
from core.runtime.program import command_line
from core.ui.load.shared import command, is_running, start_job
from core.ui.shell.context import keep_widget_state
from core.ui.shell.jobs import job_panel, jobs_of
from core.ui.shell.text import count, plain
from core.workspace.workspace import library_jobs

_CHOICE, _PROFILE = "experiment", "experiment_profile"
_USUAL = "small"


def experiment_panel() -> Experiment:
    """The controls; returns the experiment that was chosen."""
    with st.container(border=True):
        if keep_widget_state(_CHOICE, next(iter(EXPERIMENTS))) not in EXPERIMENTS:
            st.session_state[_CHOICE] = next(iter(EXPERIMENTS))
        left, middle, right = st.columns([4, 3, 1.5], vertical_alignment="bottom")
        name = left.selectbox(
            "Experiment", list(EXPERIMENTS), format_func=lambda one: EXPERIMENTS[one].title, key=_CHOICE
        )
        experiment = EXPERIMENTS[name]
        keep_widget_state(_PROFILE, _USUAL)
        profile = str(middle.segmented_control("Size", list(PROFILES), key=_PROFILE, required=True))
        seeds = right.number_input(
            "Seeds",
            1,
            100,
            PROFILES[profile].seeds,
            key=f"experiment_seeds_{profile}",
            help="Repetitions, each with its own split, tasks and initial parameters.",
        )
        st.markdown(f"{plain(experiment.words)}  \n**{profile}**: {plain(PROFILES[profile].words)}")
        usable = _images(experiment)
        args = ["experiments", name, "--profile", profile]
        args += ["--seeds", str(seeds)] if seeds != PROFILES[profile].seeds else []
        _start(experiment, f"{experiment.title}, {profile}", args, usable)
        command(args)
    return experiment


def _images(experiment: Experiment) -> bool:
    """Which image sets it will use, and how to get those that are not here; returns whether there are any."""
    here = image_sets()
    used = [f"{plain(name)} (“{plain(here[name])}”)" for name in experiment.data if name in here]
    missing = [name for name in experiment.data if name not in here]
    text = f"Image sets: {', '.join(used) or 'none'}."
    if missing:
        text += f" Not on this machine, so left out: {plain(', '.join(missing))}."
    st.caption(text)
    if missing:
        with st.expander(f"Add {count(len(missing), 'image set')} of the paper"):
            st.caption(
                "The Load page adds images too. In the place of FOLDER stands where the files lie, or shall lie."
            )
            st.code("\n".join(_adding(name) for name in missing), language="bash", wrap_lines=True)
    return bool(used)


def _adding(name: str) -> str:
    """The command that adds one of the paper's image sets."""
    words = ["data", "--format", name, "--path", "FOLDER", "--name", name]
    return command_line([*words, *(["--download"] if name in DOWNLOADABLE else [])])


def _start(experiment: Experiment, title: str, args: list[str], usable: bool) -> None:
    """Buttons to start and to go on, and how far it is."""
    of_this = f"experiments {experiment.name}"
    go, again, _ = st.columns([2, 2, 4])
    blocked = is_running(of_this) or not usable
    if go.button("Start", type="primary", disabled=blocked, key="experiment_start", width="stretch"):
        start_job(title, args)
    newest = next(iter(jobs_of(library_jobs(), of_this)), None)
    stopped = newest is not None and newest.status() in ("cancelled", "failed", "lost")
    if newest and stopped and again.button("Go on where it stopped", key="experiment_resume", width="stretch"):
        start_job(newest.title, newest.args)
    job_panel(library_jobs(), of_this)
    others = [job.title for job in jobs_of(library_jobs(), "experiments") if job.status() == "running"]
    if others and not is_running(of_this):
        st.caption(f"Running now: {plain('; '.join(others))}.")
