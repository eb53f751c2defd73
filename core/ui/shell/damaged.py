"""Name the damaged files that lists of runs, sets, views and jobs leave out."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.runtime.errors import UserError
from core.ui.shell.text import count, plain, shorten

_SHOWN = 20
_CHARACTERS = 400


def show_damaged(errors: Sequence[UserError]) -> None:
    """List the errors in the sidebar, below what every page has; draw nothing if there are none."""
    if not errors:
        return
    with st.sidebar.expander(f"⚠️ {count(len(errors), 'damaged file')} left out"):
        for error in errors[:_SHOWN]:
            st.markdown(f"{plain(shorten(error.what, _CHARACTERS))}  \n{plain(shorten(error.fix, _CHARACTERS))}")
        if len(errors) > _SHOWN:
            st.caption(f"And {len(errors) - _SHOWN:,} more.")
