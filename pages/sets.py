"""What if: named sets of changes side by side, estimated and measured."""

from __future__ import annotations

import streamlit as st

from core.actions.pace import retraining_seconds
from core.editing.retraining import training_settings
from core.runtime.progress import format_duration
from core.tasks.changes import Changes
from core.ui.review.decide import removal_bar
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, page, shown_errors
from core.ui.shell.jobs import job_panel, jobs_of, start
from core.ui.shell.text import plain
from core.ui.whatif.panel import opened_instant, prepare_panel
from core.ui.whatif.sets_panel import compared_sets, show_sets

_SAVED = "_sets_message"


def main() -> None:
    """Draw the page."""
    with page("What if") as context:
        changes = removal_bar(context)
        _save(context, changes)
        if said := st.session_state.pop(_SAVED, ""):
            st.toast(plain(said))
        names = context.workspace.sets.names()
        if not names:
            st.info("There is no set yet. Decide on tasks and images, then save what is decided under a name here.")
        else:
            _compare(context, names)
        command_block(context, ["sets", "save", names[0] if names else "NAME"], ["sets", "compare"])


def _save(context: Context, changes: Changes) -> None:
    with st.form("sets_form", border=True):
        name, note, button = st.columns([2, 4, 2], vertical_alignment="bottom")
        wanted = name.text_input("Name of the set", max_chars=60, key="sets_name")
        told = note.text_input("Note", max_chars=200, key="sets_note")
        if button.form_submit_button(
            "Save what is decided", type="primary", disabled=not len(changes), width="stretch", key="sets_save"
        ):
            with shown_errors():
                made = context.workspace.sets.save(wanted.strip(), changes, who=context.reviewer, note=told.strip())
                st.session_state[_SAVED] = f"Saved {made.name}: {made.changes.words}"
                st.rerun()


def _compare(context: Context, names: list[str]) -> None:
    chosen = st.multiselect("Sets side by side", names, default=names, key=f"sets_chosen_{len(names)}") or names
    instant = None
    with shown_errors():
        instant = opened_instant(context)
    if instant is None:
        prepare_panel(context, "Then every set is estimated here at once.", key="sets_prepare")
    compared = compared_sets(context, instant, chosen)
    show_sets(context, instant, compared)
    _act(context, chosen, {one.named.name: set(one.measurements) for one in compared})


def _act(context: Context, names: list[str], measured: dict[str, set[str]]) -> None:
    """Measure or delete a set."""
    st.subheader("Measure or delete a set")
    running = any(job.status() == "running" for job in jobs_of(context.workspace.jobs, "edit"))
    trained = training_settings(context.project.model) is not None
    which, full, quick, gone = st.columns([3, 2, 2, 2], vertical_alignment="bottom")
    name = which.selectbox("Set", names, key="sets_one")
    have = measured.get(name, set())
    if full.button(
        "Retrain in full (background)",
        disabled=running or not trained or "retrain" in have,
        key="sets_retrain",
        width="stretch",
    ):
        start(context, f"Retrain with {name}", ["edit", "--set", name, "--how", "retrain"])
        st.rerun()
    if quick.button(
        "Fine-tune (background)", disabled=running or "finetune" in have, key="sets_finetune", width="stretch"
    ):
        start(context, f"Fine-tune with {name}", ["edit", "--set", name, "--how", "finetune", "--how", "finetune-all"])
        st.rerun()
    with gone.popover("Delete", width="stretch"):
        st.markdown(f"Delete the set {plain(name)}? What was computed for it stays, and comes back with the same set.")
        if st.button("Delete it", type="primary", key="sets_delete"):
            context.workspace.sets.delete(name)
            st.session_state[_SAVED] = f"Deleted {name}"
            st.rerun()
    if not trained:
        st.caption("The model does not say how it was trained, so it cannot be retrained the same way.")
    elif "retrain" not in have:
        seconds = retraining_seconds(context.workspace, context.project)
        long = "as long as the training did" if seconds is None else f"roughly {format_duration(seconds)}"
        st.caption(f"Retraining runs the whole training again with the changes of the set: {long}.")
    job_panel(context.workspace.jobs, "edit")


main()
