"""Middleware in front of everything that the server answers: pages, files, uploads and the websocket."""

from __future__ import annotations

import hashlib
import secrets
from html import escape
from urllib.parse import quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from core.runtime.access import TOKEN_PARAMETER
from core.ui.server.login_guard import check_login
from core.ui.server.login_settings import is_login_configured
from core.ui.server.rules import is_known_host, is_loopback, is_own_origin

HEADERS = {
    # Pages load nothing from other machines; Streamlit's page needs inline scripts, eval (Vega, Plotly) and blobs.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Pages of other servers on this machine count as the same site, and are kept out by these two.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
HEALTH, METRICS = "/_stcore/health", "/_stcore/metrics"
_POLICY_VIOLATION = 1008
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>TaskLens</title>
<link rel="icon" href="data:,"><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 40rem; margin: 15vh auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }}
code {{ white-space: nowrap; }}
</style></head><body><h1>{title}</h1><p>{what}</p><p>{fix}</p></body></html>
"""


class SecurityHeaders:
    """Middleware that adds :data:`HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class AccessGuard:
    """Middleware that refuses requests and websockets from unknown hosts, from foreign pages and without the token.

    Args:
        token: Secret that the first request carries in its address; a cookie carries its hash from then on. Empty: no
            token. A login (:func:`~core.ui.server.login_settings.is_login_configured`) replaces it.
        base_path: ``server.baseUrlPath`` with a leading and no trailing slash; empty at the root.
    """

    def __init__(self, app: ASGIApp, *, token: str = "", base_path: str = "") -> None:
        self._app, self._token, self._base_path = app, token, base_path
        self._proof = hashlib.sha256(token.encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a refusal."""
        answer = None if scope["type"] not in ("http", "websocket") else self._answer(HTTPConnection(scope))
        if answer is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=_POLICY_VIOLATION)(scope, receive, send)
        else:
            await answer(scope, receive, send)

    def _answer(self, request: HTTPConnection) -> Response | None:
        """Return the answer to a request that must not reach the dashboard; None: it may."""
        path = request.scope["path"]  # request.url would be made of the Host header
        host, origin = request.headers.get("host"), request.headers.get("origin")
        if not is_known_host(host):
            return refusal(
                "Unknown host name",
                f"This dashboard does not answer under the name {host!r}.",
                "Open the address that was printed at its start. To add a name, start it with "
                "<code>tasklens dashboard --allowed-host NAME</code>.",
            )
        if not is_own_origin(origin, host):
            return refusal(
                "Foreign page", f"A page of {origin!r} sent this request.", "Open the dashboard in a tab of its own."
            )
        if path == self._base_path + METRICS:
            return Response(status_code=404)
        if path == self._base_path + HEALTH:
            return None
        if is_login_configured():
            refused = check_login(request, self._base_path)
            return refused and refusal(*refused)
        if self._token:
            return self._check_token(request)
        if not is_loopback((request.scope.get("server") or ("", None))[0]):
            return refusal(
                "No token and no login",
                "Other machines reach this server, and it asks nobody who they are.",
                "Start it with <code>tasklens dashboard</code>, which adds a token, or configure a login.",
            )
        return None

    def _check_token(self, request: HTTPConnection) -> Response | None:
        cookie = f"tasklens-{(request.scope.get('server') or ('', 0))[1]}"
        given = request.query_params.get(TOKEN_PARAMETER)
        if request.scope["type"] == "http" and given is not None and _is_equal(given, self._token):
            # The token leaves the address, which people copy, bookmark and show.
            others = [(name, value) for name, value in request.query_params.multi_items() if name != TOKEN_PARAMETER]
            path = "/" + quote(request.scope["path"].lstrip("/\\"))
            answer = Response(status_code=303, headers={"Location": f"{path}?{urlencode(others)}".rstrip("?")})
            answer.set_cookie(
                cookie,
                self._proof,
                path=self._base_path or "/",
                httponly=True,
                secure=request.scope["scheme"] == "https",
                samesite="lax",  # with "strict", the redirect from a link in another program would arrive without it
            )
            return answer
        if _is_equal(request.cookies.get(cookie, ""), self._proof):
            return None
        return refusal(
            "This dashboard needs a token",
            "The address was opened without its token, or with one that is no longer valid.",
            "Open the address that was printed at the start of the dashboard; it ends in <code>?token=...</code>",
        )


def refusal(title: str, what: str, fix: str, status: int = 403) -> Response:
    """Return the page that says why a request is refused; ``fix`` is HTML."""
    return HTMLResponse(
        _PAGE.format(title=escape(title), what=escape(what), fix=fix), status, headers={"Cache-Control": "no-store"}
    )


def _is_equal(given: str, secret: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return secrets.compare_digest(given.encode(), secret.encode())
