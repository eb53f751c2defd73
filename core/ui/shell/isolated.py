"""Read what users name or upload in a process of its own, while the page shows its progress and a button to cancel it.

A page starts a call in a *slot* of the session and asks on every run for its value with the present arguments. The call
ends once these differ, the tab is closed or the page is left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core.actions.isolated import isolated_calls
from core.runtime.isolated import IsolatedCall
from core.runtime.progress import format_duration
from core.ui.shell.guard import fragment
from core.ui.shell.text import plain

_SLOT = "_isolated_"
_WAIT_SECONDS = 1.0
"""How long the page waits itself: most calls end sooner, and then no progress flashes up."""
_POLL_SECONDS = 0.5
_LEFT_SECONDS = 90.0
"""A call ends if the page has not asked about it for so long; browsers let hidden tabs ask once per minute."""


@dataclass
class _Started:
    """A call of a session, with what identifies it."""

    name: str
    arguments: dict[str, Any]
    call: IsolatedCall
    asked: float


def prepare_calls() -> None:
    """Import in advance what calls need, so that the first starts at once."""
    isolated_calls.prepare()


def start_call(slot: str, name: str, arguments: dict[str, Any], *, ends_with_tab: bool = True) -> None:
    """Start a call (:data:`core.actions.isolated.CALLS`) in a slot, in place of the one there.

    Args:
        ends_with_tab: The call ends with its tab or page; else it runs to its end.
    """
    drop_call(slot)
    started = _Started(name, arguments, None, time.monotonic())  # type: ignore[arg-type]  # set in the next lines
    is_open = _session_check()
    wanted = (lambda: is_open() and time.monotonic() - started.asked < _LEFT_SECONDS) if ends_with_tab else lambda: True
    started.call = isolated_calls.start(name, arguments, is_wanted=wanted)
    st.session_state[_SLOT + slot] = started
    with st.spinner("Reading"):
        started.call.wait(_WAIT_SECONDS)


def drop_call(slot: str) -> None:
    """End the call in a slot, if there is one, and forget its result."""
    started: _Started | None = st.session_state.pop(_SLOT + slot, None)
    if started is not None and started.call.is_running:
        isolated_calls.cancel(started.call)


def call_folder(slot: str) -> Path:
    """Return the folder of the files that the call in a slot has written."""
    folder = st.session_state[_SLOT + slot].call.folder
    assert folder is not None
    return folder


def is_started(slot: str, name: str, arguments: dict[str, Any]) -> bool:
    """Return whether the slot has this call, running or ended; a call with other arguments is ended."""
    started: _Started | None = st.session_state.get(_SLOT + slot)
    if started is not None and (started.name, started.arguments) == (name, arguments):
        return True
    drop_call(slot)
    return False


def call_value(slot: str, name: str, arguments: dict[str, Any]) -> Any:
    """Return the value of the call in a slot; None without such a call, or while its progress is shown.

    Raises:
        UserError: the call raised it, or exceeded a limit.
    """
    if not is_started(slot, name, arguments):
        return None
    started: _Started = st.session_state[_SLOT + slot]
    started.asked = time.monotonic()
    if started.call.is_running:
        _live(slot)
        return None
    return started.call.result()


@fragment("Reading", run_every=_POLL_SECONDS)
def _live(slot: str) -> None:
    started: _Started | None = st.session_state.get(_SLOT + slot)
    if started is None or not started.call.is_running:
        st.rerun()
    started.asked = time.monotonic()
    state, seconds = started.call.progress(), time.monotonic() - started.call.started
    share, text = 0.0, "Listing files" if started.name == "images" else "Reading"
    if state is not None:
        share, text = min(1.0, state.done / state.total) if state.total else 0.0, state.stage.capitalize()
        text += f" {state.done:,}/{state.total:,}"
    elif started.call.folder is None:
        text = "Waiting to start"
    bar, cancel = st.columns([6, 1], vertical_alignment="bottom")
    bar.progress(share, f"{plain(text)} · {format_duration(seconds)}")
    if cancel.button("Cancel", key=f"cancel-{slot}"):
        drop_call(slot)
        st.rerun()


def _session_check() -> Any:
    """Return a function that tells whether the browser tab of this session is connected."""
    context = get_script_run_ctx()
    if context is None or not Runtime.exists():
        return lambda: True
    runtime, session = Runtime.instance(), context.session_id
    return lambda: runtime.is_active_session(session)
