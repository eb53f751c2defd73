"""Entry point of the dashboard: ``streamlit run app.py``."""

from core.ui.shell.navigation import route

route()
