"""The dashboard's entry: ``streamlit run app.py``."""

from core.ui.shell.navigation import route

route()
