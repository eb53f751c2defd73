"""Load: one's own images, tasks and model, step by step, into a workspace."""

import streamlit as st

from core.ui.context import free_page, shown_errors
from core.ui.load_images import images_step
from core.ui.load_model import model_step
from core.ui.load_tasks import tasks_step
from core.ui.load_workspace import workspace_step

with free_page("Load"):
    st.caption(
        "Your images, tasks and model, in four steps. Each can also be done on the command line; "
        "what is made on either side is found by the other."
    )
    images = tasks = model = None
    with shown_errors():
        images = images_step()
    if images:
        with shown_errors():
            tasks = tasks_step(images)
    if tasks:
        with shown_errors():
            model = model_step(tasks)
    if tasks and model:
        with shown_errors():
            workspace_step(tasks, model)
