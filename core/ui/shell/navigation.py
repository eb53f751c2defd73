"""The pages, their titles and addresses."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

_ROOT = Path(__file__).resolve().parents[3]
ICON = str(_ROOT / "assets" / "icon.svg")
DEFAULT_PAGE = "overview"
"""The page that the address of the dashboard opens."""
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
    """Return every page, in the order of the workflow."""
    return [
        st.Page(_ROOT / "pages" / f"{name}.py", title=title, url_path=name, default=name == DEFAULT_PAGE)
        for name, title in TITLES.items()
    ]


def page(name: str) -> StreamlitPage:
    """Return one page, to link or switch to."""
    return next(one for one in pages() if one.title == TITLES[name])


def route() -> None:
    """Run the page that the URL requests."""
    st.set_page_config(page_title="TaskLens", page_icon=ICON, layout="wide")
    chosen = st.navigation(pages())
    st.html(_ROOT / "assets" / "style.css")
    chosen.run()
