"""Parts that several steps of the Load page share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from core.checkpoints.model import model_sequence
from core.runtime.errors import UserError
from core.runtime.files import library
from core.tasks.generate import tasks_sequence
from core.ui.shell.context import keep_widget_state
from core.ui.shell.guard import show_error
from core.ui.shell.jobs import jobs_of
from core.ui.shell.text import plain
from core.workspace.workspace import library_jobs

_DONE = "_load_done_"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


def start_job(title: str, args: Sequence[str]) -> None:
    """Start ``tasklens <args>`` as a separate process and rerun the page."""
    library_jobs().start(title, list(args))
    st.rerun()


def new_result(command: str) -> str:
    """Return the result (last line of stdout) of a job that succeeded since the last call; empty if there is none."""
    done = [job for job in jobs_of(library_jobs(), command) if job.status() == "done"]
    if not done:
        return ""
    seen = st.session_state.get(_DONE + command)
    st.session_state[_DONE + command] = done[0].id
    results = done[0].results()
    return results[-1] if seen != done[0].id and results else ""


def newest_first(kind: str, file: str) -> list[Path]:
    """Return this file of every folder of tasks (``tasks``) or models (``models``).

    Those of earlier versions, which have no number, are older than all others, and ordered by the time of the file.
    """
    number = tasks_sequence if kind == "tasks" else model_sequence
    files = (library() / kind).glob(f"*/{file}")
    return sorted(files, key=lambda path: (number(path), path.stat().st_mtime_ns), reverse=True)


def choose_folder(
    label: str, kind: str, folders: Mapping[str, str], commands: Sequence[str], *, key: str
) -> Path | None:
    """Choose one of the described folders, at first the newest result of the commands; None if there are none."""
    for command in commands:
        if (new := Path(new_result(command) or ".")).name in folders:
            st.session_state[key] = new.name
    if not folders:
        return None
    keep_widget_state(key, next(iter(folders)), folders)
    name = st.selectbox(label, list(folders), format_func=lambda one: f"{one} · {folders[one]}", key=key)
    return library() / kind / name


def name_input(what: str, default_name: str, *, key: str) -> str:
    """Draw the input for the name of something new; a new default replaces a name entered for another default."""
    default_name = default_name[-64:].lstrip(".-_")
    return st.text_input(f"Name of the {what}", default_name, key=f"{key}_{default_name}").strip()


def place_for(kind: str, name: str) -> Path:
    """Return the folder in which to create tasks (``tasks``) or a model (``models``) of that name.

    Raises:
        UserError: the name is not valid for a folder.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a valid name.", "Use up to 64 letters, digits, '.', '_' and '-'.")
    return library() / kind / name


def show_report(report: Mapping[str, Any]) -> None:
    """Show an :class:`core.actions.inspect.Inspection` as JSON has it: what was found, and what is wrong with it."""
    st.markdown("\n".join(f"- {plain(line)}" for line in report["found"]))
    for fault in report["faults"]:
        show_error(UserError(fault))
