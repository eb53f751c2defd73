"""A name from a user in every kind of element that Streamlit reads as Markdown, and in a chart."""

import streamlit as st

from core.maml.evaluation import Interval
from core.ui.charts.edit import Dot, edit_figure
from core.ui.shell.text import plain
from tests.e2e.names import NAME

shown = plain(NAME)
st.title(shown)
st.markdown(f"- **{shown}**")
st.caption(shown)
st.error(shown)
st.button(shown, help=shown)
st.expander(shown, expanded=True).caption("inside")
st.metric(shown, "1")
st.progress(0.5, shown)
st.tabs([shown])
st.checkbox(shown)
st.toast(shown, duration="infinite")
st.plotly_chart(edit_figure([Dot(name, Interval(0.5, 0.4, 0.6), None) for name in ("Unedited model", NAME)]))
