"""Ask for the login that ``secrets.toml`` requires, before anything else is drawn."""

from __future__ import annotations

import streamlit as st
from streamlit.errors import Error

from core.runtime.errors import UserError
from core.ui.server.login_settings import FIX, INSTALL, LoginSettings, login_settings, reviewer_name
from core.ui.shell.guard import guarded, page_body, report_errors


def log_in() -> str:
    """Return the reviewer who has logged in, an empty string where no login is required; else end the page.

    An error also ends the page: what is not known to be allowed is not shown.
    """
    reviewer: str | None = None
    with report_errors("The login"):
        reviewer = _reviewer()
    if reviewer is None:
        st.stop()
    return reviewer


def _reviewer() -> str | None:
    """Return the reviewer, or None after drawing what somebody can do who is none."""
    settings = login_settings()
    if st.user.get("is_logged_in") is True:
        with report_errors("The login"):
            return reviewer_name(st.user, settings or LoginSettings())
        log_out_button()
        return None
    if settings is None and "is_logged_in" not in st.user:
        return ""
    with page_body("Log in"):
        st.title("TaskLens")
        st.button("Log in", on_click=guarded(_start_login, "Log in"), type="primary")
    return None


def log_out_button() -> None:
    """Draw the button that ends the login."""
    st.button("Log out", on_click=guarded(st.logout, "Log out"))


def _start_login() -> None:
    try:
        st.login()
    except ImportError as error:
        raise UserError("The login cannot start: Authlib is missing.", INSTALL) from error
    except Error as error:
        raise UserError(f"The login cannot start: {' '.join(str(error).split())}", FIX) from error
