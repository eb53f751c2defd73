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
    """Draw a button that relabels every undecided row with a confident suggestion.

    A suggestion is confident if the queue gives the other class a high enough probability.
    """
    queue = newest_queue(context.workspace)
    if queue is None:
        st.page_link(link("review"), label="Relabel as suggested: this needs a review queue, which Review makes")
        return
    chance, button, words = st.columns([2, 3, 5], vertical_alignment="bottom")
    least = chance.number_input(
        "Least probability",
        0.0,
        1.0,
        0.5,
        0.05,
        key="tasks_least_probability",
        help="That the suggested class is right, as the queue estimates it; unknown counts as 0.",
    )
    every = _suggested(str(context.workspace.folder), str(queue.folder), task_id, least)
    free = undecided(every, context.workspace.decisions.current())
    settled = f"; {count(len(every) - len(free), 'more row')} decided already" if len(free) < len(every) else ""
    words.caption(f"{count(len(free), 'row')} of this task would change{settled}.")
    if button.button(f"Relabel {count(len(free), 'row')} as suggested", disabled=not free, key="tasks_relabel"):
        relabel_each(context, free)
        st.rerun()


@st.cache_resource(max_entries=256, show_spinner=False)
def _suggested(workspace: str, queue: str, task_id: str, least: float) -> list[Decision]:
    return suggestions_of_task(OpenWorkspace(Path(workspace)), Run(Path(queue)), task_id, least)
