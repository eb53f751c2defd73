"""Open the review queue for the pages."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.review.review_queue import Queue
from core.ui.shell.context import Context, table
from core.workspace.runs import Run


def open_queue(context: Context, run: Run) -> Queue:
    """Return the queue of a run, read once."""
    return _open(str(run.folder), context.project.images.class_names, run)


@st.cache_resource(max_entries=4, show_spinner="Reading the queue")
def _open(folder: str, names: tuple[str, ...], _run: Run) -> Queue:
    return Queue.of_table(Path(folder), table(_run, "items.parquet"), names)
