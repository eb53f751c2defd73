"""Make decisions from a page, and undo them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from core.actions.decide import mark, suggestions_of_task, without_found_errors
from core.decisions.causes import CAUSE_WORDS, CAUSES, Cause, OptionalCause
from core.decisions.log import Item, Operation, Result, Verdict
from core.review.suggestions import undecided
from core.tasks.changes import Changes
from core.ui.grid.component import clear_selection
from core.ui.shell.context import Context, OpenWorkspace
from core.ui.shell.guard import report_errors
from core.ui.shell.navigation import page as link
from core.ui.shell.text import count, plain

_MESSAGE = "_review_message"
_CAUSE = "_review_cause"
"""Key of the cause that is chosen in the bar of the page; empty where it has no choice."""
_SHOWN, _SEEN = "_review_shown", "_review_seen"
"""Keys of the log versions shown by this run and by the previous one, which the reviewer saw when clicking."""
_suggestions = st.cache_resource(
    max_entries=256, show_spinner=False, hash_funcs={OpenWorkspace: lambda workspace: str(workspace.folder)}
)(suggestions_of_task)


def decide(
    context: Context,
    items: Sequence[Item],
    verdict: Verdict,
    source: str,
    reason: str = "",
    cause: OptionalCause | None = None,
) -> None:
    """Append decisions, after :func:`removal_bar` was drawn; the message is shown after the rerun.

    Items whose label was found wrong are not removed for another cause.

    Args:
        cause: Of the decisions; None: the one that is chosen in the bar. "clear" has none.
    """
    chosen: OptionalCause = st.session_state.get(_CAUSE, "") if cause is None else cause
    new = without_found_errors(context.workspace, items, chosen) if verdict == "remove" else list(items)
    if new:
        mark(
            context.workspace,
            new,
            verdict=verdict,
            cause="" if verdict == "clear" else chosen,
            reason=reason,
            reviewer=context.reviewer,
            source=source,
            saw=st.session_state.get(_SEEN),
        )
    participle = {"remove": "removed", "clear": "cleared"}.get(verdict, "kept")
    message, found = f"{count(len(new), items[0].kind)} {participle}", len(items) - len(new)
    announce(f"{message}; unchanged: {count(found, 'label error')} found before" if found else message)


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


def relabel_panel(context: Context, task_id: str) -> None:
    """Draw a button that relabels every undecided row of a task for which the queue suggests a class.

    The suggested class must have a high enough probability.
    """
    with report_errors("The suggested classes"):
        _relabel_panel(context, task_id)


def _relabel_panel(context: Context, task_id: str) -> None:
    from core.actions.queue import newest_queue  # imports scikit-learn

    queue = newest_queue(context.workspace)
    if queue is None:
        st.page_link(link("review"), label="Relabelling as suggested needs a queue: build it on the Review page")
        return
    probability, button, words = st.columns([2, 3, 5], vertical_alignment="bottom")
    minimum = probability.number_input(
        "Minimum probability",
        0.0,
        1.0,
        0.5,
        0.05,
        key="tasks_least_probability",
        help="Estimated probability that the suggested class is right; unknown counts as 0.",
    )
    suggestions, log = _suggestions(context.workspace, queue, task_id, minimum), context.workspace.decisions
    new = undecided(suggestions, log.current())
    decided = len(suggestions) - len(new)
    skipped = f"; already decided: {count(decided, 'more row')}" if decided else ""
    words.caption(f"{count(len(new), 'row')} of this task would change{skipped}.")
    if button.button(f"Relabel {count(len(new), 'row')} as suggested", disabled=not new, key="tasks_relabel"):
        log.submit([Operation("decide", context.reviewer, "", tuple(new), st.session_state.get(_SEEN))])
        announce(f"{count(len(new), 'row')} relabelled")
        st.rerun()


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


def removal_bar(context: Context, cause: Cause | None = None) -> Changes | None:
    """Show the present removals and relabels with undo and redo buttons; return the changes.

    None if they cannot be read, which the page then says; it goes on without them.

    Args:
        cause: Draw a choice of the cause of the decisions that are made on this page, with this default.
    """
    st.session_state[_CAUSE] = ""
    with report_errors("The bar of decisions"):
        return _removal_bar(context, cause)
    st.session_state[_SEEN] = st.session_state[_SHOWN] = None
    return None


def _removal_bar(context: Context, cause: Cause | None) -> Changes:
    log = context.workspace.decisions
    version = log.version()
    st.session_state[_SEEN], st.session_state[_SHOWN] = st.session_state.get(_SHOWN, version), version
    removal = context.workspace.changes()
    text, *choices, undo, redo = st.columns([5, 2, 1, 1] if cause else [6, 1, 1], vertical_alignment="center")
    for place in choices:
        st.session_state[_CAUSE] = place.selectbox(
            "Cause of the decisions",
            CAUSES,
            CAUSES.index(cause) if cause else 0,
            format_func=lambda one: f"Cause: {CAUSE_WORDS[one]}",
            key=f"review_cause_{cause}",
            label_visibility="collapsed",
        )
    contested = len(log.conflicts())
    excluded = f" · {count(contested, 'item')} in conflict excluded" if contested else ""
    text.markdown(f"Decided: {removal.words if len(removal) else 'nothing yet'}{excluded}")
    for column, label, act in ((undo, "Undo", log.undo), (redo, "Redo", log.redo)):
        if column.button(label, key=f"review_{label}", width="stretch"):
            announce(reversal_text(label.lower(), act(context.reviewer)))
            st.rerun()
    show_message()
    return removal
