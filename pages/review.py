"""Review: suspected label errors in a grid, most suspicious first, with one key per decision."""

from dataclasses import replace

import streamlit as st

from core.actions.queue import newest_queue
from core.ui.review.decide import show_message
from core.ui.review.filter_panel import filter_panel, use
from core.ui.review.live import current_state, live_grid, open_queue
from core.ui.review.map import drawn_area
from core.ui.review.queue_panel import queue_panels
from core.ui.review.snapshots_panel import snapshots_panel
from core.ui.shell.command import command_block
from core.ui.shell.context import page
from core.ui.shell.guard import report_errors
from core.ui.shell.jobs import job_panel, start_button

COMMAND = ["review", "queue"]

with page("Review") as context:
    run = newest_queue(context.workspace)
    show_message()
    with st.container():  # a container, so that everything below remains in place when a job appears or ends
        job_panel(context.workspace.jobs, "review")
    if run is None:
        st.markdown(
            "The queue lists the most likely label errors first. To choose the best score for your data, TaskLens "
            "flips known labels on a copy and measures which score finds them. Building it takes about a minute; the "
            "result is saved."
        )
        start_button(context, "Build queue", "Build review queue", COMMAND, key="review_make", primary=True)
        command_block(context, COMMAND)
        snapshots_panel(context, blind=False)
        st.stop()

    queue = open_queue(run, context.project.images.class_names)
    if not len(queue):
        st.info("The queue is empty: there is nothing to review.")
        st.stop()
    filters = filter_panel(context, queue)
    blind = bool(st.session_state.get("review_blind", False))
    above = st.container()
    if st.session_state.get("review_map"):
        drawn = None
        with above, report_errors("The map"):
            drawn = drawn_area(queue, current_state(context, queue, blind))
        if drawn is not None and drawn != st.session_state.get("_review_drawn"):
            st.session_state["_review_drawn"] = drawn
            use(replace(filters, lasso=drawn))
            st.rerun()
    live_grid(context, queue, filters, blind)
    queue_panels(context, queue, blind)
    snapshots_panel(context, blind)
