"""What the steps of the Load page share: jobs of no workspace, their results, and commands to copy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from core.actions.inspect import Inspection
from core.runtime.errors import UserError
from core.runtime.files import library
from core.runtime.program import command_line
from core.ui.shell.context import show_error
from core.ui.shell.jobs import jobs_of
from core.ui.shell.text import plain
from core.workspace.workspace import library_jobs

_DONE = "_load_done_"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


def start_job(title: str, args: Sequence[str]) -> None:
    """Start ``tasklens <args>`` as a process of its own, and run the page again."""
    library_jobs().start(title, list(args))
    st.rerun()


def finished(command: str) -> str:
    """The result (the last line of stdout) of a job that ended well since this was last asked; else empty."""
    done = [job for job in jobs_of(library_jobs(), command) if job.status() == "done"]
    if not done:
        return ""
    seen = st.session_state.get(_DONE + command)
    st.session_state[_DONE + command] = done[0].id
    results = done[0].results()
    return results[-1] if seen != done[0].id and results else ""


def is_running(command: str) -> bool:
    return any(job.status() == "running" for job in jobs_of(library_jobs(), command))


def place_for(kind: str, name: str) -> Path:
    """Where tasks (``tasks``) or a model (``models``) of that name are to be made.

    Raises:
        UserError: the name is none for a folder.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name.", "Use up to 64 letters, digits, '.', '_' and '-'.")
    return library() / kind / name


def show_report(report: Inspection) -> None:
    """What an inspection found, and what does not fit."""
    st.markdown("\n".join(f"- {plain(line)}" for line in report.found))
    for fault in report.faults:
        show_error(UserError(fault))


def command(*commands: Sequence[str]) -> None:
    """Commands to copy, one a line."""
    st.caption("The same on the command line")
    lines = "\n".join(map(command_line, commands))
    st.code(lines, language="bash", wrap_lines=True)
