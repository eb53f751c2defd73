"""Show named snapshots of the review, the changes since, and conflicts, agreement and comments of reviewers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from core.decisions.agreement import Agreement, agreement
from core.decisions.log import DecisionLog, Item, Snapshot
from core.decisions.records import decision_text
from core.ui.review.decide import announce
from core.ui.shell.context import Context
from core.ui.shell.guard import report_errors
from core.ui.shell.text import count, minute_of, plain, shorten

_MAX_ROWS = 1_000
SAVE = "Save snapshot"
_LOG_HASH: Any = {DecisionLog: lambda log: (str(log.path), log.change_counter())}
_changed = st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=_LOG_HASH)(DecisionLog.difference)
_agreed = st.cache_resource(max_entries=32, show_spinner=False, hash_funcs=_LOG_HASH)(agreement)


def snapshots_panel(context: Context, blind: bool) -> None:
    """Draw the panel while it is open; in blind mode it shows nothing of other reviewers' decisions."""
    panel = st.expander("Snapshots, conflicts, agreement and comments", key="review_open_snapshots", on_change="rerun")
    if not panel.open:
        return
    with panel:
        snapshots, conflicts, agreements, comments = st.tabs(["Snapshots", "Conflicts", "Agreement", "Comments"])
        with snapshots, report_errors("The list of snapshots"):
            _snapshots(context, blind)
        if blind:
            for tab in (conflicts, agreements):
                tab.info("Hidden in blind mode, because it would reveal the decisions of other reviewers.")
        else:
            with conflicts, report_errors("The list of conflicts"):
                _conflicts(context)
            with agreements, report_errors("The agreement"):
                _agreement(context)
        with comments, report_errors("The list of comments"):
            _comments(context, context.reviewer if blind else None)


def _snapshots(context: Context, blind: bool) -> None:
    log = context.workspace.decisions
    with st.form("review_snapshot", clear_on_submit=True, border=False):
        name, note, save = st.columns([3, 5, 2], vertical_alignment="bottom")
        title = name.text_input("Name", max_chars=80, key="review_snapshot_name")
        comment = note.text_input("Note", max_chars=500, key="review_snapshot_note")
        if save.form_submit_button(SAVE, width="stretch"):
            with report_errors(SAVE):
                log.snapshot(title.strip(), context.reviewer, comment.strip())
    known = log.snapshots()
    if not known:
        st.caption("No snapshots yet. A snapshot saves the current decisions, so that you can restore them.")
        return
    listed = pd.DataFrame(
        [(one.name, one.reviewer, minute_of(one.at), one.note) for one in reversed(known)],
        columns=["name", "reviewer", "when (UTC)", "note"],
    )
    if blind:
        st.dataframe(listed, hide_index=True)
        st.info("In blind mode snapshots cannot be compared or restored, as both involve the decisions of others.")
        return
    st.dataframe(listed.assign(decisions=[_number(log, one) for one in reversed(known)]), hide_index=True)
    names = [one.name for one in reversed(known)]
    left, right = st.columns(2)
    before = left.selectbox("Compare", names, key="review_before")
    after = right.selectbox("with", [None, *names], key="review_after", format_func=lambda one: one or "now")
    _difference(context, before, after)
    _restore(context, before)


@st.cache_resource(max_entries=512, show_spinner=False, hash_funcs={DecisionLog: lambda log: str(log.path)})
def _number(log: DecisionLog, snapshot: Snapshot) -> int:
    """Return the number of decisions in a snapshot, which never changes."""
    return len(log.state(snapshot.name))


def _difference(context: Context, before: str, after: str | None) -> None:
    found = _changed(context.workspace.decisions, before, after)
    if not found:
        st.caption("No differences.")
        return
    more = f"; the first {_MAX_ROWS:,} are shown" if len(found) > _MAX_ROWS else ""
    st.caption(f"{count(len(found), 'item')} differ{more}")
    words = partial(decision_text, names=context.project.images.class_names)
    rows = [(_item_text(item), words(old), words(new)) for item, (old, new) in list(found.items())[:_MAX_ROWS]]
    frame = pd.DataFrame(rows, columns=["item", "then", "now"])
    st.dataframe(frame, hide_index=True, height="content" if len(found) < 8 else 300)


def _restore(context: Context, name: str) -> None:
    log = context.workspace.decisions
    changes = len(_changed(log, name, None))
    confirmation, button = st.columns([4, 2], vertical_alignment="center")
    agreed = confirmation.checkbox(
        f"Confirm: restore {plain(shorten(name, 24))}",
        key=f"review_restore_sure_{log.change_counter()}_{name}",
        disabled=not changes,
    )
    if button.button("Restore", disabled=not (agreed and changes), key="review_restore", width="stretch"):
        log.restore(name, context.reviewer)
        announce(f"Restored {name}: {count(changes, 'decision')} changed")
        st.rerun()
    if changes:
        st.caption(f"{count(changes, 'decision')} would change, whoever made them. A single undo reverts all of it.")


def _conflicts(context: Context) -> None:
    found = context.workspace.decisions.conflicts()
    if not found:
        st.caption("No conflicts: no two reviewers decided differently without seeing the other decision.")
        return
    words = partial(decision_text, names=context.project.images.class_names)
    rows = [
        (_item_text(item), "; ".join(f"{one.reviewer}: {words(one)}" for one in entries), minute_of(entries[-1].at))
        for item, entries in list(found.items())[:_MAX_ROWS]
    ]
    st.caption(
        f"{count(len(found), 'item')} excluded from edits and exports until a reviewer who sees all the decisions "
        "decides again: filter for “In conflict” above."
    )
    st.dataframe(pd.DataFrame(rows, columns=["item", "decisions", "when (UTC)"]), hide_index=True)


def _agreement(context: Context) -> None:
    log = context.workspace.decisions
    reviewers = _reviewers(log)
    if len(reviewers) < 2:
        st.caption("Agreement needs two reviewers who have decided on some of the same items.")
        return
    left, right = st.columns(2)
    one = left.selectbox("Reviewer", reviewers, key="review_agree_one")
    two = right.selectbox("and", [name for name in reviewers if name != one], key="review_agree_two")
    found = _agreed(log, one, two)
    st.markdown(_agreement_words(found))
    if found.differing:
        words = partial(decision_text, names=context.project.images.class_names)
        rows = [(_item_text(a.item), words(a), words(b)) for a, b in found.differing[:_MAX_ROWS]]
        st.dataframe(pd.DataFrame(rows, columns=["item", f"1: {one}", f"2: {two}"]), hide_index=True)


def _agreement_words(found: Agreement) -> str:
    """Return ``37 items decided by both for the same cause, 92 % in agreement. Cohen's kappa 0.83 [0.64, 0.97] ...``"""
    shares = f"{count(found.items, 'item')} decided by both for the same cause, **{found.equal:.0%}** in agreement. "
    if found.kappa != found.kappa:
        return shares + "Cohen's kappa is undefined, as both gave all items the same verdict."
    few = " With so few items the interval is too narrow." if found.items < 30 else ""
    return f"{shares}Cohen's kappa **{found.kappa:.2f}** [{found.low:.2f}, {found.high:.2f}] (95 % interval).{few}"


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs=_LOG_HASH)
def _reviewers(log: DecisionLog) -> list[str]:
    return sorted({entry.reviewer for entry in log.history()})


def _comments(context: Context, only: str | None) -> None:
    found = [one for one in context.workspace.decisions.comments() if only in (None, one.reviewer)]
    if not found:
        st.caption("No comments yet. Press m on an item to comment on it.")
        return
    rows = [(minute_of(one.at), one.reviewer, _item_text(one.item), one.text) for one in reversed(found[-_MAX_ROWS:])]
    st.dataframe(pd.DataFrame(rows, columns=["when (UTC)", "reviewer", "item", "comment"]), hide_index=True)


def _item_text(item: Item) -> str:
    """Return ``image 12``, ``task t3 / query / 12``."""
    where = " / ".join(filter(None, (item.task_id, item.role, item.image_id)))
    return f"image {where}" if item.kind == "image" else f"task {where}"
