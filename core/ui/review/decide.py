"""Make decisions from a page, and undo them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from core.actions.decide import mark
from core.decisions.log import Decision, Item, Operation, Result, Verdict
from core.tasks.changes import Changes
from core.ui.grid.component import clear_selection
from core.ui.shell.context import Context
from core.ui.shell.text import count, plain

_MESSAGE = "_review_message"
_SHOWN, _SEEN = "_review_shown", "_review_seen"
"""Keys of the log versions shown by this run and by the previous one, which the reviewer saw when clicking."""


def decide(context: Context, items: Sequence[Item], verdict: Verdict, source: str, reason: str = "") -> None:
    """Append decisions; the message is shown after the rerun."""
    mark(
        context.workspace,
        items,
        verdict=verdict,
        reason=reason,
        reviewer=context.reviewer,
        source=source,
        saw=seen_version(),
    )
    participle = {"remove": "removed", "clear": "cleared"}.get(verdict, "kept")
    announce(f"{count(len(items), items[0].kind)} {participle}")


def decision_buttons(
    context: Context,
    places: Sequence[Any],
    items: Sequence[Item],
    what: str,
    source: str,
    reasons: tuple[str, str],
    *,
    key: str,
    grid: str = "",
    primary: bool = True,
    width: Literal["stretch", "content"] = "stretch",
) -> None:
    """Draw the buttons Remove and Keep; if one is pressed, decide on the items and run the page again.

    Args:
        places: Where the two buttons are drawn.
        what: The items in words, after "Remove" and "Keep".
        reasons: Why the items are removed, and why they are kept.
        key: The keys of the buttons are ``<key>_remove`` and ``<key>_keep``.
        grid: The grid whose selection is cleared.
        primary: Draw Remove as a primary button.
    """
    verdicts: tuple[Verdict, Verdict] = ("remove", "keep")
    for place, verdict, reason in zip(places, verdicts, reasons, strict=True):
        kind = "primary" if primary and verdict == "remove" else "secondary"
        label = f"{verdict.capitalize()} {what}".strip()
        if place.button(label, type=kind, disabled=not items, key=f"{key}_{verdict}", width=width):
            decide(context, items, verdict, source, reason)
            if grid:
                clear_selection(grid)
            st.rerun()


def relabel_each(context: Context, decisions: Sequence[Decision]) -> None:
    """Append decisions with a separate class for each item, as one group; the message is shown after the rerun."""
    context.workspace.decisions.submit([Operation("decide", context.reviewer, "", tuple(decisions), seen_version())])
    announce(f"{count(len(decisions), 'row')} relabelled")


def announce(message: str) -> None:
    """Show a message after the next rerun, on any page."""
    st.session_state[_MESSAGE] = message


def show_message() -> None:
    """Show the message that :func:`announce` stored, once."""
    if message := st.session_state.pop(_MESSAGE, ""):
        st.toast(plain(message))


def reversal_text(act: str, result: Result) -> str:
    """Return what an ``undo`` or ``redo`` did."""
    if result.group is None:
        return f"There is nothing to {act}."
    verb = "Undone" if act == "undo" else "Redone"
    newer = len(result.newer_entries)
    kept = f"; kept: {count(newer, 'newer decision')} by other reviewers" if newer else ""
    return f"{verb}: {count(len(result.reversed_entries), 'decision')}{kept}."


def seen_version() -> int | None:
    """Return the version of the log that was on the screen when the user pressed the button of this run.

    Call it after :func:`removal_bar`.
    """
    return st.session_state.get(_SEEN)


def removal_bar(context: Context) -> Changes:
    """Show the present removals and relabels with undo and redo buttons; return the changes."""
    version = context.workspace.decisions.version()
    st.session_state[_SEEN], st.session_state[_SHOWN] = st.session_state.get(_SHOWN, version), version
    removal = context.workspace.changes()
    text, undo, redo = st.columns([6, 1, 1], vertical_alignment="center")
    contested = len(context.workspace.decisions.conflicts())
    excluded = f" · {count(contested, 'item')} in conflict excluded" if contested else ""
    text.markdown(f"Decided: {removal.words if len(removal) else 'nothing yet'}{excluded}")
    for column, label, act in (
        (undo, "Undo", context.workspace.decisions.undo),
        (redo, "Redo", context.workspace.decisions.redo),
    ):
        if column.button(label, key=f"review_{label}", width="stretch"):
            announce(reversal_text(label.lower(), act(context.reviewer)))
            st.rerun()
    show_message()
    return removal
