"""Refuse requests of whoever has not logged in, where ``secrets.toml`` requires a login.

The pages ask for the login as well. Here, a visitor without one gets no script, no session, no upload and no image
either: Streamlit itself opens a session for everybody, and takes uploads into memory for every session.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any, NamedTuple

from starlette.requests import HTTPConnection
from streamlit.auth_util import encode_provider_token, get_cookie_with_chunks, get_origin_from_redirect_uri
from streamlit.errors import Error
from streamlit.user_info import AUTH_LOGIN_ENDPOINT, AUTH_LOGOUT_ENDPOINT
from streamlit.web.server.server_util import get_cookie_secret
from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from core.runtime.errors import UserError
from core.ui.server.login_settings import CALLBACK, INSTALL, login_settings, reviewer_name

OPEN_PATHS = (AUTH_LOGIN_ENDPOINT, AUTH_LOGOUT_ENDPOINT, CALLBACK)
"""Paths of the login itself, below ``server.baseUrlPath``."""


class Refusal(NamedTuple):
    """Title, what is wrong (text) and what to do (HTML) of the page that a visitor gets instead."""

    title: str
    what: str
    fix: str


def check_login(request: HTTPConnection, base_path: str) -> Refusal | None:
    """Return why a request is refused, or None: it belongs to the login, comes from a reviewer, or none is required.

    Args:
        base_path: ``server.baseUrlPath`` with a leading and no trailing slash; empty at the root.
    """
    try:
        settings = login_settings()
        if settings is None or request.scope["path"] in [base_path + path for path in OPEN_PATHS]:
            return None
        user = logged_in_user(request)
        if user is None:
            return _login_page(base_path)
    except UserError as error:
        return Refusal("The login does not work", error.what, escape(error.fix))
    try:
        reviewer_name(user, settings)
    except UserError as error:
        log_out = f'<a href="{base_path}{AUTH_LOGOUT_ENDPOINT}">Log out</a>'
        return Refusal("This account cannot be used", error.what, f"{escape(error.fix)}</p><p>{log_out}")
    return None


def logged_in_user(request: HTTPConnection) -> dict[str, Any] | None:
    """Return the claims in the signed cookie of a request; None if it is missing, altered, expired or of another site.

    Streamlit signs the cookie with ``cookie_secret``, and takes it for a month.
    """

    def read(name: str) -> bytes | None:
        value = request.cookies.get(name)
        return None if value is None else decode_signed_value(get_cookie_secret(), name, value)

    try:
        claims = json.loads(get_cookie_with_chunks(read, USER_COOKIE_NAME) or b"null")
    except ValueError:
        return None
    if not isinstance(claims, dict) or claims.get("is_logged_in") is not True:
        return None
    return claims if claims.get("origin") == get_origin_from_redirect_uri() else None


def _login_page(base_path: str) -> Refusal:
    try:
        token = encode_provider_token("default")
    except (Error, ImportError):
        return Refusal("The login does not work", "Authlib is missing.", escape(INSTALL))
    return Refusal(
        "TaskLens",
        "This dashboard needs a login.",
        f'<a href="{base_path}{AUTH_LOGIN_ENDPOINT}?provider={escape(token)}">Log in</a>',
    )
