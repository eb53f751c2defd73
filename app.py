"""The dashboard's entry: ``streamlit run app.py``."""

from core.ui.navigation import route

route()
