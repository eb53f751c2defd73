"""The script that Streamlit runs for every page."""

from core.ui.shell.navigation import route

route()
