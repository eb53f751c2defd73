"""Experiments: the paper's tables and figures measured again, and what goes beyond them."""

import streamlit as st

from core.ui.experiments.panel import experiment_panel
from core.ui.experiments.results import results_panel
from core.ui.shell.context import free_page, shown_errors

with free_page("Experiments"):
    st.caption(
        "The tables and figures of the paper, measured again on image sets of this machine, each over several seeds, "
        "and two further questions. They work on problems of their own, not on the workspace at hand."
    )
    experiment = experiment_panel()
    with shown_errors():
        results_panel(experiment)
