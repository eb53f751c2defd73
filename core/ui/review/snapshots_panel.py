"""Show named snapshots of the review, the changes since, and conflicts, agreement and comments of reviewers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import streamlit as st

from core.decisions.agreement import Agreement
from core.decisions.agreement import agreement as measured
from core.decisions.log import DecisionLog, Entry, Item, Snapshot
from core.ui.review.decide import announce
from core.ui.shell.context import Context, shown_errors
from core.ui.shell.text import count, plain, shortened

NOW = "now"
MOST_ROWS = 1_000
_TABS = ("Snapshots", "Conflicts", "Agreement", "Comments")


def snapshots_panel(context: Context, blind: bool) -> None:
    """Draw the panel while it is open; in blind mode it shows nothing of other reviewers' decisions."""
    panel = st.expander("Snapshots, conflicts, agreement and comments", key="review_open_snapshots", on_change="rerun")
    if not panel.open:
        return
    with panel:
        snapshots, conflicts, agreement, comments = st.tabs(_TABS)
        with snapshots, shown_errors():
            _snapshots(context, blind)
        if blind:
            for tab in (conflicts, agreement):
                tab.info("Not shown in blind mode, as it would tell what others decided.")
        else:
            with conflicts:
                _conflicts(context)
            with agreement, shown_errors():
                _agreement(context)
        with comments:
            _comments(context, context.reviewer if blind else None)


def _snapshots(context: Context, blind: bool) -> None:
    log = context.workspace.decisions
    with st.form("review_snapshot", clear_on_submit=True, border=False):
        name, note, save = st.columns([3, 5, 2], vertical_alignment="bottom")
        called = name.text_input("Name", max_chars=80, key="review_snapshot_name")
        said = note.text_input("Note", max_chars=500, key="review_snapshot_note")
        if save.form_submit_button("Save a snapshot", width="stretch"):
            with shown_errors():
                log.snapshot(called.strip(), context.reviewer, said.strip())
    known = log.snapshots()
    if not known:
        st.caption("No snapshot yet. A snapshot keeps the decisions as they are now under a name, to come back to.")
        return
    if blind:
        st.dataframe(_listed(log, known, with_number=False), hide_index=True)
        st.info("What has changed, and restoring, are not offered in blind mode: both concern what others decided.")
        return
    st.dataframe(_listed(log, known), hide_index=True)
    names = [one.name for one in reversed(known)]
    left, right = st.columns(2)
    before = left.selectbox("Compare", names, key="review_before")
    after = right.selectbox("with", [None, *names], key="review_after", format_func=lambda one: one or NOW)
    _difference(context, before, after)
    _restore(context, before)


def _listed(log: DecisionLog, known: list[Snapshot], with_number: bool = True) -> pd.DataFrame:
    columns: dict[str, list[str] | list[int]] = {
        "name": [one.name for one in reversed(known)],
        "who": [one.reviewer for one in reversed(known)],
        "when (UTC)": [_when(one.at) for one in reversed(known)],
        "note": [one.note for one in reversed(known)],
    }
    if with_number:
        columns["decisions"] = [_number(str(log.path), one.id, one.at, log, one.name) for one in reversed(known)]
    return pd.DataFrame(columns)


@st.cache_resource(max_entries=512, show_spinner=False)
def _number(path: str, number: int, at: str, _log: DecisionLog, _name: str) -> int:
    """Return the number of decisions in a snapshot, which never changes."""
    return len(_log.state(_name))


def _difference(context: Context, before: str, after: str | None) -> None:
    log = context.workspace.decisions
    found = _changed(str(log.path), log.change_counter(), before, after, log)
    if not found:
        st.caption("Nothing differs.")
        return
    words = opinions(context.project.images.class_names)
    st.caption(
        f"{count(len(found), 'item')} differ"
        + (f"; the first {MOST_ROWS:,} are shown" if len(found) > MOST_ROWS else "")
    )
    st.dataframe(difference_table(found, words), hide_index=True, height="content" if len(found) < 8 else 300)


Differing = Mapping[Item, tuple[Entry | None, Entry | None]]


@st.cache_resource(max_entries=16, show_spinner=False)
def _changed(path: str, pulse: int, before: str, after: str | None, _log: DecisionLog) -> Differing:
    return _log.difference(before, after)


def difference_table(found: Differing, words: Callable[[Entry | None], str]) -> pd.DataFrame:
    """Return the columns item, then, now: one row per item, at most :data:`MOST_ROWS`."""
    rows = [(named(item), words(old), words(new)) for item, (old, new) in list(found.items())[:MOST_ROWS]]
    return pd.DataFrame(rows, columns=["item", "then", "now"])


def _restore(context: Context, name: str) -> None:
    log = context.workspace.decisions
    changes = len(_changed(str(log.path), log.change_counter(), name, None, log))
    sure, button = st.columns([4, 2], vertical_alignment="center")
    agreed = sure.checkbox(
        f"Go back to {plain(shortened(name, 24))}",
        key=f"review_restore_sure_{log.change_counter()}_{name}",
        disabled=not changes,
    )
    if button.button("Restore", disabled=not (agreed and changes), key="review_restore", width="stretch"):
        log.restore(name, context.reviewer)
        announce(f"{count(changes, 'decision')} changed to what {name} has")
        st.rerun()
    if changes:
        st.caption(
            f"{count(changes, 'decision')} would change to what they were, whoever made them. Undo takes that back in "
            "one step."
        )


def _conflicts(context: Context) -> None:
    found = context.workspace.decisions.conflicts()
    if not found:
        st.caption("No conflict: nobody decided differently without having seen the other.")
        return
    words = opinions(context.project.images.class_names)
    rows = [
        (named(item), "; ".join(f"{entry.reviewer}: {words(entry)}" for entry in entries), _when(entries[-1].at))
        for item, entries in list(found.items())[:MOST_ROWS]
    ]
    st.caption(
        f"{count(len(found), 'item')} left out of edits and exports until somebody decides with all opinions on the "
        "screen: show those “In conflict” above."
    )
    st.dataframe(pd.DataFrame(rows, columns=["item", "opinions", "when (UTC)"]), hide_index=True)


def _agreement(context: Context) -> None:
    log = context.workspace.decisions
    reviewers = _reviewers(str(log.path), log.version(), log)
    if len(reviewers) < 2:
        st.caption("Agreement needs two reviewers who have decided on some of the same items.")
        return
    left, right = st.columns(2)
    one = left.selectbox("Reviewer", reviewers, key="review_agree_one")
    two = right.selectbox("and", [name for name in reviewers if name != one], key="review_agree_two")
    found = _agreed(str(log.path), log.version(), one, two, log)
    st.markdown(agreement_words(found))
    if found.differing:
        words = opinions(context.project.images.class_names)
        rows = [(named(a.item), words(a), words(b)) for a, b in found.differing[:MOST_ROWS]]
        st.dataframe(pd.DataFrame(rows, columns=["item", f"1: {one}", f"2: {two}"]), hide_index=True)


def agreement_words(found: Agreement) -> str:
    """Return ``37 items decided by both, 92 % alike. Cohen's kappa 0.83 [0.64, 0.97] (95 % interval).``"""
    said = f"{count(found.items, 'item')} decided by both, **{found.equal:.0%}** alike. "
    if found.kappa != found.kappa:
        return said + "Cohen's kappa is not defined, as both said the same of all items."
    few = " With so few items the interval is too narrow." if found.items < 30 else ""
    return f"{said}Cohen's kappa **{found.kappa:.2f}** [{found.low:.2f}, {found.high:.2f}] (95 % interval).{few}"


@st.cache_resource(max_entries=32, show_spinner=False)
def _agreed(path: str, version: int, one: str, two: str, _log: DecisionLog) -> Agreement:
    return measured(_log, one, two)


@st.cache_resource(max_entries=8, show_spinner=False)
def _reviewers(path: str, version: int, _log: DecisionLog) -> list[str]:
    return sorted({entry.reviewer for entry in _log.history()})


def _comments(context: Context, only: str | None) -> None:
    found = [one for one in context.workspace.decisions.comments() if only in (None, one.reviewer)]
    if not found:
        st.caption("Nobody has said anything yet: the key m comments on an item.")
        return
    rows = [(_when(one.at), one.reviewer, named(one.item), one.text) for one in reversed(found[-MOST_ROWS:])]
    st.dataframe(pd.DataFrame(rows, columns=["when (UTC)", "who", "item", "comment"]), hide_index=True)


def named(item: Item) -> str:
    """Return ``image 12``, ``task t3 / query / 12``."""
    where = " / ".join(filter(None, (item.task_id, item.role, item.image_id)))
    return f"image {where}" if item.kind == "image" else f"task {where}"


def opinions(names: tuple[str, ...]) -> Callable[[Entry | None], str]:
    """Return a function that describes a decision in words.

    For example ``remove``, ``relabel to 7``, ``undecided``.
    """

    def words(entry: Entry | None) -> str:
        if entry is None:
            return "undecided"
        if entry.label is None:
            return entry.verdict
        known = 0 <= entry.label < len(names)
        return f"relabel to {names[entry.label] if known else entry.label}"

    return words


def _when(at: str) -> str:
    return at[:16].replace("T", " ")
