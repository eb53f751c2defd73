"""Provide what every page starts with: the open workspace, the reviewer, and the guard of its body."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core.decisions.log import DecisionLog
from core.decisions.records import check_reviewer
from core.runtime.errors import TransientError, UserError
from core.runtime.files import file_version
from core.ui.ranking.method_text import differences
from core.ui.shell.damaged import show_damaged
from core.ui.shell.guard import begin_page, page_body, report_errors
from core.ui.shell.login import log_in, log_out_button
from core.workspace.demos import DEMOS, open_demo
from core.workspace.runs import Run
from core.workspace.workspace import (
    RANKING_KIND,
    Project,
    Workspace,
    all_workspaces,
    library_jobs,
    runs_of_problem,
)

WORKSPACE, REVIEWER, RANKING = "workspace", "reviewer", "ranking"
_SAVED, _NEXT = "_saved_", "_next_workspace"
_REVIEWER = "me"  # where nobody has entered a name
_BUSY_SECONDS = 1.5
"""How long a page waits for another writer before it reports that the log is locked."""


class OpenWorkspace(Workspace):
    """A workspace that shares its data among all sessions and reads them again when they change on disk."""

    def project(self) -> Project:
        """Return the problem, shared by all sessions."""
        return load_project(str(self.folder), _stamp(self.folder))

    @cached_property
    def decisions(self) -> DecisionLog:
        """Return the decision log, shared by all sessions."""
        path = self.folder / "decisions.sqlite"
        if not path.exists():
            return DecisionLog(path)
        return decision_log(str(path), path.stat().st_ino, _BUSY_SECONDS)


@dataclass(frozen=True)
class Context:
    """A workspace, its problem and the reviewer, as a page sees them."""

    workspace: Workspace
    project: Project
    reviewer: str


@contextmanager
def page(title: str) -> Iterator[Context]:
    """Begin a page: ``with page("Tasks") as context: ...``.

    An exception inside is shown as a red box with what to do; what was drawn before it stays on the page.
    """
    begin_page()
    opened: Context | None = None
    with report_errors("The workspace"):
        workspace, reviewer = _sidebar()
        opened = Context(workspace, workspace.project(), reviewer)
    if opened is None:
        st.stop()  # a context manager must not end before its yield; the sidebar still offers other workspaces
    show_damaged(opened.workspace.damaged())
    st.title(title)
    with page_body(title):
        yield opened


@contextmanager
def free_page(title: str) -> Iterator[None]:
    """Begin a page that needs no workspace; it opens even where the present workspace is broken."""
    begin_page()
    with report_errors("The sidebar"):
        _sidebar()
        show_damaged(library_jobs().damaged())
    st.title(title)
    with page_body(title):
        yield


def keep_widget_state(key: str, default: str, options: Collection[str] = ()) -> None:
    """Preserve a widget's value across pages, if it is among the options; call it before the widget is drawn.

    Streamlit drops a widget's value when the user leaves its page, and gives the same key on the next page its first
    option; a value that was assigned, even to itself, remains.
    """
    value = st.session_state.get(key, st.session_state.get(_SAVED + key, default))
    if options and value not in list(options):  # in a list, as what a browser sends may have no hash
        value = default
    st.session_state[key] = st.session_state[_SAVED + key] = value


def open_next(workspace: str) -> None:
    """Open a workspace from the next run on."""
    st.session_state[_NEXT] = workspace


def _missing_demos(present: Collection[str]) -> dict[str, Path]:
    """Return the demos that are not present, made now; where they cannot be written, none if others are present."""
    made: dict[str, Path] = {}
    for demo in DEMOS:
        if demo not in present:
            try:
                made[demo] = open_demo(demo).folder
            except TransientError:
                if not present and not made:
                    raise
    return made


def _sidebar() -> tuple[OpenWorkspace, str]:
    login = log_in()
    names = {path.name: path for path in all_workspaces()}
    names |= _missing_demos(names)
    first = next((demo for demo in DEMOS if demo in names), next(iter(names)))
    linked = st.query_params.get(WORKSPACE, "")
    keep_widget_state(WORKSPACE, linked if linked in names else first, names)
    if (chosen := st.session_state.pop(_NEXT, "")) in names:
        st.session_state[WORKSPACE] = chosen
    keep_widget_state(REVIEWER, _REVIEWER)
    if login:
        st.session_state[REVIEWER] = login
    with st.sidebar:
        name = st.selectbox("Workspace", list(names), key=WORKSPACE, help="Tasks, a model, results and decisions.")
        reviewer = st.text_input(
            "Reviewer",
            key=REVIEWER,
            max_chars=None if login else 60,
            disabled=bool(login),
            help="Saved with every decision you make.",
        )
        if login:
            reviewer = login
            log_out_button()
    st.session_state[_SAVED + WORKSPACE], st.session_state[_SAVED + REVIEWER] = name, reviewer
    reviewer = reviewer.strip() or _REVIEWER
    check_reviewer(reviewer)
    return OpenWorkspace(names[name]), reviewer


def _stamp(folder: Path) -> str:
    """Return a text that changes when a file of the problem of a workspace does, also to an older one."""
    files = sorted(path for part in ("tasks", "model") for path in (folder / part).glob("[!.]*") if path.is_file())
    return "\n".join(f"{path.name} {file_version(path)}" for path in files)


@st.cache_resource(max_entries=4, show_spinner="Reading tasks and images")
def load_project(folder: str, stamp: str) -> Project:
    """Return the problem of a workspace, read once for all sessions."""
    return Workspace(Path(folder)).project()


@st.cache_resource(max_entries=32, show_spinner=False)
def decision_log(path: str, inode: int, busy_seconds: float) -> DecisionLog:
    """Return the log in exactly this file, opened once for all sessions; every call reads from the disk."""
    return DecisionLog(Path(path), busy_seconds=busy_seconds)


def _run_hash(run: Run) -> str:
    try:
        state = run.folder.stat()
    except OSError as error:
        raise UserError(f"{run.folder} cannot be read: {error.strerror}.", "Reload the page.") from error
    return f"{run.folder} {state.st_ino} {state.st_mtime_ns}"


RUN_HASH: Any = {Run: _run_hash}
"""The key of a run in caches: one that is computed again keeps its folder."""


@st.cache_resource(max_entries=48, show_spinner=False, hash_funcs=RUN_HASH)
def table(run: Run, name: str) -> pd.DataFrame:
    """Return a table of a finished run, which must not be changed in place.

    All sessions share it, as unpickling a copy of 18,900 rows on every rerun takes longer than the rest of a page.
    """
    return run.table(name)


def choose_ranking(context: Context) -> Run | None:
    """Return the ranking chosen in the sidebar, which the pages show; None if there is none yet."""
    runs = {run.id: run for run in runs_of_problem(context.workspace, context.project, RANKING_KIND)}
    if not runs:
        return None
    keep_widget_state(RANKING, next(iter(runs)), runs)
    chosen = st.sidebar.selectbox(
        "Ranking", list(runs), format_func=lambda run_id: ranking_label(runs[run_id]), key=RANKING
    )
    st.session_state[_SAVED + RANKING] = chosen
    return runs[chosen]


def ranking_label(run: Run) -> str:
    """Return ``all held-out tasks · task-if, exact, damping 0.3 · 3f2a1b``."""
    config = run.config
    target = {"all": "all held-out tasks", "": "no target"}.get(config["target"], config["target"])
    method = config.get("method", "an older version")
    return f"{target} · {', '.join([method, *differences(config)])} · {run.id[-6:]}"
