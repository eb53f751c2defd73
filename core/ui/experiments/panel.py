"""Draw the controls that choose an experiment, start it and show its progress."""

from __future__ import annotations

import streamlit as st

from core.data.download import DOWNLOADABLE
from core.experiments.catalog import EXPERIMENTS, Experiment
from core.experiments.profiles import PROFILES
from core.experiments.run import image_sets
from core.runtime.program import command_line
from core.ui.load.shared import start_job
from core.ui.shell.command import show_commands
from core.ui.shell.context import keep_widget_state
from core.ui.shell.jobs import is_running, job_panel, jobs_of, stopped_job
from core.ui.shell.text import count, plain
from core.workspace.workspace import library_jobs

_CHOICE, _PROFILE = "experiment", "experiment_profile"
MISSING_IMAGES = "Not on this machine, so skipped"


def experiment_panel() -> Experiment:
    """Show the controls and return the chosen experiment."""
    with st.container(border=True):
        keep_widget_state(_CHOICE, next(iter(EXPERIMENTS)), EXPERIMENTS)
        left, middle, right = st.columns([4, 3, 1.5], vertical_alignment="bottom")
        titles = {name: one.title for name, one in EXPERIMENTS.items()}
        name = left.selectbox("Experiment", list(titles), format_func=titles.__getitem__, key=_CHOICE)
        experiment = EXPERIMENTS[name]
        keep_widget_state(_PROFILE, "small", PROFILES)
        profile = str(middle.segmented_control("Size", list(PROFILES), key=_PROFILE, required=True))
        seeds = right.number_input(
            "Seeds",
            1,
            100,
            PROFILES[profile].seeds,
            key=f"experiment_seeds_{profile}",
            help="Repetitions, each with its own split, tasks and initial parameters.",
        )
        st.markdown(f"{plain(experiment.description)}  \n**{profile}**: {plain(PROFILES[profile].words)}")
        usable = _images(experiment)
        args = ["experiments", name, "--profile", profile]
        args += ["--seeds", str(seeds)] if seeds != PROFILES[profile].seeds else []
        _start(experiment, f"{experiment.title}, {profile}", args, usable)
        show_commands(args)
    return experiment


def _images(experiment: Experiment) -> bool:
    """Show which image sets will be used and how to add missing ones; return whether there are any."""
    stored = image_sets()
    used = [f"{plain(name)} (“{plain(stored[name])}”)" for name in experiment.data if name in stored]
    missing = [name for name in experiment.data if name not in stored]
    skipped = f" {MISSING_IMAGES}: {plain(', '.join(missing))}." if missing else ""
    st.caption(f"Image sets: {', '.join(used) or 'none'}.{skipped}")
    if missing:
        with st.expander(f"Add {count(len(missing), 'image set')} of the paper"):
            st.caption(
                "You can also add them on the Load page. Replace FOLDER with the folder of the files, or the folder to "
                "download to."
            )
            st.code("\n".join(map(_import_command, missing)), language="bash", wrap_lines=True)
    return bool(used)


def _import_command(name: str) -> str:
    words = ["data", "--format", name, "--path", "FOLDER", "--name", name]
    return command_line([*words, *(["--download"] if name in DOWNLOADABLE else [])])


def _start(experiment: Experiment, title: str, args: list[str], usable: bool) -> None:
    command = f"experiments {experiment.name}"
    start, resume, _ = st.columns([2, 2, 4])
    jobs = library_jobs()
    running = is_running(jobs, command)
    if start.button("Start", type="primary", disabled=running or not usable, key="experiment_start", width="stretch"):
        start_job(title, args)
    stopped = stopped_job(jobs, command)
    if stopped and resume.button("Resume", key="experiment_resume", width="stretch"):
        start_job(stopped.title, stopped.args)
    job_panel(jobs, command)
    others = [job.title for job in jobs_of(jobs, "experiments") if job.status() == "running"]
    if others and not running:
        st.caption(f"Running now: {plain('; '.join(others))}.")
