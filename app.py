"""Entry point of the dashboard: ``streamlit run app.py``, or ``tasklens dashboard``, which adds a token."""

from streamlit.starlette import App

from core.ui.server.start import SCRIPT, app_options

app = App(SCRIPT, **app_options())
