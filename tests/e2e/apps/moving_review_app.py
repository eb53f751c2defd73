"""The review grid below a line that is there while the file MOVE is, so that Streamlit draws the grid elsewhere."""

import os
from pathlib import Path

import streamlit as st

from core.actions.queue import newest_queue
from core.ui.context import page
from core.ui.review_filters import Filters
from core.ui.review_live import live_grid
from core.ui.review_queue import open_queue

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
    live_grid(context, open_queue(context, run), Filters(), False)
