"""What if: named sets of changes side by side, estimated and measured."""

from __future__ import annotations

import streamlit as st

from core.actions.compute import Compute
from core.actions.whatif_sets import compare
from core.editing.retraining import training_settings
from core.tasks.changes import Changes
from core.ui.edit.results import retraining_note
from core.ui.review.decide import announce, removal_bar
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, page, table
from core.ui.shell.guard import report_errors
from core.ui.shell.jobs import is_running, job_panel, start
from core.ui.shell.text import plain
from core.ui.whatif.panel import live_estimator, prepare_panel
from core.ui.whatif.sets_panel import show_sets


def main() -> None:
    """Draw the page."""
    with page("What if") as context:
        changes = removal_bar(context)
        _save(context, changes)
        names = context.workspace.sets.names()
        if not names:
            st.info("There are no sets yet. Decide on tasks and images, then save these decisions here under a name.")
        else:
            _compare(context, names)
        command_block(context, ["sets", "save", names[0] if names else "NAME"], ["sets", "compare"])


def _save(context: Context, changes: Changes | None) -> None:
    with st.form("sets_form", border=True):
        name, note, button = st.columns([2, 4, 2], vertical_alignment="bottom")
        wanted = name.text_input("Name of the set", max_chars=60, key="sets_name")
        comment = note.text_input("Note", max_chars=200, key="sets_note")
        if button.form_submit_button(
            "Save current decisions", type="primary", disabled=not changes, width="stretch", key="sets_save"
        ):
            assert changes is not None  # the button is disabled
            with report_errors("Save current decisions"):
                saved = context.workspace.sets.save(wanted.strip(), changes, who=context.reviewer, note=comment.strip())
                announce(f"Saved {saved.name}: {saved.changes.words}")
                st.rerun()


def _compare(context: Context, names: list[str]) -> None:
    chosen = st.multiselect("Sets to compare", names, default=names, key=f"sets_chosen_{len(names)}") or names
    estimator = None
    with report_errors("The live estimate"):
        estimator = live_estimator(context)
    if estimator is None:
        prepare_panel(context, "Afterwards every set is estimated here immediately.", key="sets_prepare")
    compared = compare(context.workspace, estimator, Compute(), chosen, table)
    show_sets(context, estimator, compared)
    _act(context, chosen, {one.named.name: one.complete for one in compared})


def _act(context: Context, names: list[str], measured: dict[str, set[str]]) -> None:
    st.subheader("Measure or delete a set")
    running = is_running(context.workspace.jobs, "edit")
    trained = training_settings(context.project.model) is not None
    choice, full, quick, delete = st.columns([3, 2, 2, 2], vertical_alignment="bottom")
    name = choice.selectbox("Set", names, key="sets_one")
    have = measured.get(name, set())
    if full.button(
        "Retrain in full (background)",
        disabled=running or not trained or "retrain" in have,
        key="sets_retrain",
        width="stretch",
    ):
        start(context, f"Retrain with {name}", ["edit", "--set", name, "--how", "retrain"])
    if quick.button(
        "Fine-tune (background)", disabled=running or "finetune" in have, key="sets_finetune", width="stretch"
    ):
        start(context, f"Fine-tune with {name}", ["edit", "--set", name, "--how", "finetune"])
    with delete.popover("Delete", width="stretch"):
        st.markdown(f"Delete the set {plain(name)}? Its results are kept and reappear if you save the same set again.")
        if st.button("Delete it", type="primary", key="sets_delete"):
            context.workspace.sets.delete(name)
            announce(f"Deleted {name}")
            st.rerun()
    if not trained or "retrain" not in have:
        st.caption(retraining_note(context))
    job_panel(context.workspace.jobs, "edit")


main()
