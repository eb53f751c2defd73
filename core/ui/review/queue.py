"""Open the review queue for the pages."""

from __future__ import annotations

import streamlit as st

from core.review.review_queue import Queue
from core.ui.shell.context import Context, table
from core.workspace.runs import Run


def open_queue(context: Context, run: Run) -> Queue:
    """Return the queue of a run, read once."""
    return _open(run, context.project.images.class_names)


@st.cache_resource(max_entries=4, show_spinner="Reading the queue")
def _open(run: Run, names: tuple[str, ...]) -> Queue:
    return Queue.of_table(run.folder, table(run, "items.parquet"), names)
