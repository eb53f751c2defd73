"""Experiments: run the paper's experiments and two further ones, and show their results."""

import streamlit as st

from core.ui.experiments.panel import experiment_panel
from core.ui.experiments.results import results_panel
from core.ui.shell.context import free_page
from core.ui.shell.guard import report_errors

with free_page("Experiments"):
    st.caption(
        "Reproduce the paper's tables and figures, and two further experiments, on the image sets on this machine and "
        "over several seeds. Experiments use their own tasks and models, not the open workspace."
    )
    experiment = experiment_panel()
    with report_errors("The list of results"):
        results_panel(experiment)
