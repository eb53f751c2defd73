"""The review grid below a line that is there while the file MOVE is, so that Streamlit draws the grid elsewhere."""

import os
from pathlib import Path

import streamlit as st

from core.actions.queue import newest_queue
from core.review.filters import Filters
from core.ui.review.live import live_grid, open_queue
from core.ui.shell.context import page

there = Path(os.environ["MOVE"])
shown = there.exists()


@st.fragment(run_every=0.2)
def watch() -> None:
    if there.exists() != shown:
        st.rerun()


st.session_state["_routed"] = True
with page("Review") as context:
    with st.container():
        watch()
    if shown:
        st.write("A line above")
    run = newest_queue(context.workspace)
    assert run is not None
    live_grid(context, open_queue(run, context.project.images.class_names), Filters(), False)
