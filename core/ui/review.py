"""Marking things for removal from a page, and taking it back."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.actions.decide import mark
from core.tasks.changes import Changes
from core.ui.context import Context
from core.ui.text import count, plain
from core.workspace.decisions import Item, Verdict

_MESSAGE = "_review_message"


def decide(context: Context, items: Sequence[Item], verdict: Verdict, source: str, reason: str = "") -> None:
    """Append decisions; the message shows after the rerun."""
    mark(context.workspace, items, verdict=verdict, reason=reason, reviewer=context.reviewer, source=source)
    word = "marked for removal" if verdict == "remove" else "kept"
    st.session_state[_MESSAGE] = f"{count(len(items), items[0].kind)} {word}"


def removal_bar(context: Context) -> Changes:
    """What is marked for removal, undo and redo, and the way to the Edit page; returns the removal set."""
    removal = context.workspace.removal()
    text, undo, redo = st.columns([6, 1, 1], vertical_alignment="center")
    parts = [
        count(len(getattr(removal, kind)), kind[:-1])
        for kind in ("tasks", "images", "instances")
        if getattr(removal, kind)
    ]
    text.markdown("Marked for removal: " + (", ".join(parts) if parts else "nothing yet"))
    for column, label, act in (
        (undo, "Undo", context.workspace.decisions.undo),
        (redo, "Redo", context.workspace.decisions.redo),
    ):
        if column.button(label, key=f"review_{label}", width="stretch"):
            changed = act(context.reviewer)
            done = (
                f"{label}: {count(len(changed.taken), 'decision')}" if changed.taken else f"Nothing to {label.lower()}"
            )
            kept = f"; {count(len(changed.kept), 'newer decision')} by others kept" if changed.kept else ""
            st.session_state[_MESSAGE] = done + kept
            st.rerun()
    if message := st.session_state.pop(_MESSAGE, ""):
        st.toast(plain(message))
    return removal
