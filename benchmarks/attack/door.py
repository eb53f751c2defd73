"""Forge requests: names that resolve to this machine, other origins, missing and guessed tokens, odd paths.

Every request that is not the dashboard's own must be refused; the few that are its own must pass, or the count of
refusals would mean nothing.
"""

from __future__ import annotations

import http.client
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

from core.runtime.access import TOKEN_VARIABLE
from core.runtime.files import HOME_VARIABLE
from tests.e2e.server import ROOT, Server, start_server

TOKEN = "a-token-that-nobody-guesses"
PATHS = (
    "/", "/overview", "/review", "/?token=", "/_stcore/host-config", "/_stcore/stream", "/_stcore/metrics",
    "/_stcore/upload_file/a/b", "/media/a.png", "/static/js/index.js", "/component/a/index.html", "//evil.example/",
    "/%2e%2e/%2e%2e/etc/passwd", "/../etc/passwd", "/_stcore/health/../stream", "/favicon.png",
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
HOSTS = (
    "evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "localhost.evil.example", "evil-localhost",
    "localhost@evil.example", "evil.example@localhost", "localhost:{port}@evil.example", "127.0.0.1 evil.example", "",
    "localhost#evil.example", "localhost/evil.example", "0.0.0.0", "127.1", "2130706433", "[::ffff:127.0.0.1]",
    "0x7f.0.0.1", "xn--lcalhost-9na", "localhost:99999", "localhost:port", "*", "*.localhost", "10.0.0.1", "[::]",
)  # fmt: skip
ORIGINS = (
    "http://evil.example", "null", "http://localhost:9999", "http://127.0.0.1:9999", "file://", "http://localhost",
    "https://{netloc}.evil.example", "http://{netloc}@evil.example", "chrome-extension://abc", "http://[::1]:9999",
)  # fmt: skip
TOKENS = ("", " ", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "0" * len(TOKEN), "%00", "..", "a" * 5000)


@dataclass
class DoorFigures:
    """Requests that were refused, and those with an answer that they should not have."""

    refused: int = 0
    own: int = 0
    wrong: list[str] = field(default_factory=list)


def attack_door() -> DoorFigures:
    """Send every combination of names and paths, methods, origins, cookies and tokens."""
    figures = DoorFigures()
    with tempfile.TemporaryDirectory() as temporary:
        server = start_server(ROOT / "app.py", Path(temporary), {HOME_VARIABLE: temporary, TOKEN_VARIABLE: TOKEN})
        try:
            cookie = _ask(server, "GET", f"/?token={TOKEN}", {})[1].get("Set-Cookie", "").partition(";")[0]
            for method, path, headers in _forged(server, cookie):
                status, answer = _ask(server, method, path, headers)
                # A redirect to another site would lead the browser, and what it then types, there.
                if status in (400, 403, 404, 405) and not answer.get("Set-Cookie"):
                    figures.refused += 1
                else:
                    figures.wrong.append(f"{status}: {method} {path} {headers}")
            for path in ("/", "/review", "/favicon.png", "/_stcore/host-config"):
                status, _ = _ask(server, "GET", path, {"Cookie": cookie})
                figures.own += status == 200
                figures.wrong += [] if status == 200 else [f"{status}: own request for {path}"]
        finally:
            server.stop()
    return figures


def _forged(server: Server, cookie: str) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    own = urlsplit(server.url)
    for host, path in itertools.product(HOSTS, PATHS):
        for stolen in ({}, {"Cookie": cookie}):
            yield "GET", path, {"Host": host.format(port=own.port), **stolen}
    for method, origin in itertools.product(METHODS, ORIGINS):
        for path in ("/", "/_stcore/upload_file/a/b", "/_stcore/stream"):
            yield method, path, {"Origin": origin.format(netloc=own.netloc), "Cookie": cookie}
    for method, path in itertools.product(METHODS, PATHS):
        yield method, path, {}
    name = cookie.partition("=")[0]
    for token in TOKENS:
        yield "GET", f"/?token={token.replace(' ', '%20')}", {}
        yield "GET", "/", {"Cookie": f"{name}={token}"}
        yield "GET", "/", {"Cookie": f"{name}={TOKEN}"}  # the cookie holds its hash
        yield "GET", "/", {"Authorization": f"Bearer {token}", "X-Forwarded-Host": own.netloc}


def _ask(server: Server, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, Message]:
    """Return status and headers of the answer; a connection that is closed without one counts as 400."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    except (http.client.HTTPException, ConnectionError):
        return 400, Message()
    finally:
        connection.close()
