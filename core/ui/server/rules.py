"""The rules of who may talk to the dashboard, which the start and the middleware apply."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from streamlit import config
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from core.runtime.access import MIN_TOKEN_LENGTH, TOKEN_VARIABLE
from core.runtime.errors import UserError
from core.ui.server.login_settings import is_login_configured

_HOST = re.compile(r"([^\s:\[\]]+|\[[^\s\[\]]+\])(:\d+)?")
"""A name or an address, an IPv6 address in brackets, with or without a port."""


def is_loopback(address: str | None) -> bool:
    """Return whether only this machine reaches an address; an empty one, on which a server binds everywhere, is not."""
    if address == "localhost":
        return True
    try:
        return ip_address(address or "").is_loopback
    except ValueError:
        return False


def is_known_host(host: str | None) -> bool:
    """Return whether a ``Host`` header names the dashboard: one of ``server.allowedHosts``; none if that is empty.

    A page at a foreign name that resolves to this machine (DNS rebinding) sends its own name.
    """
    is_host = _HOST.fullmatch(host or "") is not None  # Streamlit takes evil[::1] for ::1
    return is_host and bool(config.get_option("server.allowedHosts")) and is_host_allowed(host)


def is_own_origin(origin: str | None, host: str | None) -> bool:
    """Return whether a request comes from a page of the dashboard; programs, which are no pages, send no ``Origin``.

    Streamlit itself also accepts pages of other local servers, and looks up the external address to compare.
    """
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:  # http://[
        return False
    return parts.scheme in ("http", "https") and parts.netloc != "" and parts.netloc == host


def check_start(address: str | None, token: str) -> None:
    """Check that whoever reaches the address must prove who they are.

    Raises:
        UserError: other machines reach the address, and there is neither a login nor a token; or the token is short.
    """
    if token and len(token) < MIN_TOKEN_LENGTH:
        raise UserError(
            f"{TOKEN_VARIABLE} has {len(token)} characters.", f"Use at least {MIN_TOKEN_LENGTH} random ones."
        )
    if not (is_loopback(address) or token or is_login_configured()):
        raise UserError(
            f"Other machines reach the address {address or '0.0.0.0'}, and anyone there could read your data and "
            "change decisions: the dashboard has neither a token nor a login.",
            f"Start it with `tasklens dashboard --address {address or '0.0.0.0'}`, which adds a token, or configure a "
            "login (docs/security.md).",
        )
