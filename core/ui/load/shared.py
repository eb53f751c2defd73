"""Provide the parts that all steps of the Load page share: jobs without a workspace, results, and commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from core.actions.inspect import Inspection
from core.runtime.errors import UserError
from core.runtime.files import library
from core.ui.shell import jobs
from core.ui.shell.context import show_error
from core.ui.shell.text import plain
from core.workspace.workspace import library_jobs

_DONE = "_load_done_"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


def start_job(title: str, args: Sequence[str]) -> None:
    """Start ``tasklens <args>`` as a separate process and rerun the page."""
    library_jobs().start(title, list(args))
    st.rerun()


def new_result(command: str) -> str:
    """Return the result of a job that succeeded since the last call; empty if there is none.

    The result is the last line of its stdout.
    """
    done = [job for job in jobs.jobs_of(library_jobs(), command) if job.status() == "done"]
    if not done:
        return ""
    seen = st.session_state.get(_DONE + command)
    st.session_state[_DONE + command] = done[0].id
    results = done[0].results()
    return results[-1] if seen != done[0].id and results else ""


def is_running(command: str) -> bool:
    """Return whether a job of this command is running."""
    return jobs.is_running(library_jobs(), command)


def place_for(kind: str, name: str) -> Path:
    """Return the folder in which to create tasks (``tasks``) or a model (``models``) of that name.

    Raises:
        UserError: the name is not valid for a folder.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a valid name.", "Use up to 64 letters, digits, '.', '_' and '-'.")
    return library() / kind / name


def show_report(report: Inspection) -> None:
    """Show the contents found by an inspection and the problems with them."""
    st.markdown("\n".join(f"- {plain(line)}" for line in report.found))
    for fault in report.faults:
        show_error(UserError(fault))
