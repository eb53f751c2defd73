"""Relabel the rows of a task as the review queue suggests."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.actions.decide import suggestions_of_task
from core.actions.queue import newest_queue
from core.decisions.log import Decision
from core.review.suggestions import undecided
from core.ui.review.decide import relabel_each
from core.ui.shell.context import Context, OpenWorkspace
from core.ui.shell.navigation import page as link
from core.ui.shell.text import count
from core.workspace.runs import Run


def relabel_panel(context: Context, task_id: str) -> None:
    """Draw a button that relabels every undecided row whose suggested class has a high enough probability."""
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
    suggestions = _suggested(str(context.workspace.folder), queue, task_id, minimum)
    new = undecided(suggestions, context.workspace.decisions.current())
    decided = len(suggestions) - len(new)
    skipped = f"; already decided: {count(decided, 'more row')}" if decided else ""
    words.caption(f"{count(len(new), 'row')} of this task would change{skipped}.")
    if button.button(f"Relabel {count(len(new), 'row')} as suggested", disabled=not new, key="tasks_relabel"):
        relabel_each(context, new)
        st.rerun()


@st.cache_resource(max_entries=256, show_spinner=False)
def _suggested(workspace: str, queue: Run, task_id: str, minimum: float) -> list[Decision]:
    return suggestions_of_task(OpenWorkspace(Path(workspace)), queue, task_id, minimum)
