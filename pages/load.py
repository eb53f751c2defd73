"""Load: import images, tasks and a model into a workspace, step by step."""

import streamlit as st

from core.ui.load.images import images_step
from core.ui.load.model import model_step
from core.ui.load.tasks import tasks_step
from core.ui.load.workspace import workspace_step
from core.ui.shell.context import free_page
from core.ui.shell.guard import report_errors
from core.ui.shell.uploads import uploads_panel

with free_page("Load"):
    st.caption(
        "Load your images, tasks and model in four steps. You can also do each step on the command line; "
        "both work on the same files."
    )
    images = tasks = model = None
    with report_errors():
        images = images_step()
    if images:
        with report_errors():
            tasks = tasks_step(images)
    if tasks:
        with report_errors():
            model = model_step(tasks)
    if tasks and model:
        with report_errors():
            workspace_step(tasks, model)
    with report_errors():
        uploads_panel()
