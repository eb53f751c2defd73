"""The page registry, and the guard that every page begins with."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

_ROOT = Path(__file__).resolve().parents[3]
_ROUTED = "_routed"
ICON = str(_ROOT / "assets" / "icon.svg")
TITLES = {
    "overview": "Overview",
    "load": "Load",
    "review": "Review",
    "tasks": "Tasks",
    "images": "Images",
    "why": "Why",
    "trust": "Trust",
    "edit": "Edit",
    "sets": "What if",
    "curves": "Curves",
    "experiments": "Experiments",
    "export": "Export",
}


def pages() -> list[StreamlitPage]:
    """Every page, in the order of the work."""
    return [
        st.Page(_ROOT / "pages" / f"{name}.py", title=title, url_path=name, default=name == "overview")
        for name, title in TITLES.items()
    ]


def page(name: str) -> StreamlitPage:
    """One page, to link or switch to."""
    return next(one for one in pages() if one.title == TITLES[name])


def route() -> None:
    """Run the page that the address asks for."""
    st.set_page_config(page_title="TaskLens", page_icon=ICON, layout="wide")
    chosen = st.navigation(pages())
    st.html(_ROOT / "assets" / "style.css")
    st.session_state[_ROUTED] = True
    chosen.run()


def guard() -> None:
    """Make sure that ``app.py`` routed this run.

    On a fresh server Streamlit runs the file of a deep link (``/tasks``) by itself, without ``app.py``, because the
    files lie in ``pages/``; then the registry is made known here and the run begins again, the ordinary way.
    """
    if st.session_state.pop(_ROUTED, False):
        return
    st.navigation(pages())
    st.rerun()
