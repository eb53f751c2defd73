"""What the middleware refuses, with nothing behind it: hosts, origins, requests without the token, framing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from streamlit import config

from core.runtime.access import LOCAL_HOSTS
from core.ui.server import middleware
from core.ui.server.middleware import HEADERS, HEALTH, METRICS, AccessGuard, SecurityHeaders
from core.ui.server.rules import is_known_host

OWN = "http://127.0.0.1:8501"
TOKEN = "a-token-that-is-long-enough"
STREAM = "/_stcore/stream"
PATHS = ("/", "/tasks", HEALTH, "/_stcore/host-config", "/media/a.png", "/component/a/b.js", "/static/js/a.js")
FOREIGN_HOSTS = (
    "evil.example",
    "evil.example:8501",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example:8501@localhost",
    "localhost@evil.example",
    "localhost:port",
    "localhost/evil.example",
    "0.0.0.0:8501",
    "[::2]:8501",
    "[::1",
    "[::1]evil.example",
    "evil.example[::1]",
    "127.0.0.1 ",
    "",
)
FOREIGN_ORIGINS = (
    "http://evil.example",
    "http://127.0.0.1:9999",
    "http://localhost:8501",
    "http://127.0.0.1:8501.evil.example",
    "http://127.0.0.1",
    "null",
    "",
    "file://",
    "http://[",
    "http://[::1",
    "javascript://127.0.0.1:8501/",
    "//127.0.0.1:8501",
)
Client = Callable[..., TestClient]


async def _reached(request: Request) -> Response:
    return PlainTextResponse("reached")


async def _stream(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("reached")
    await websocket.close()


def client(token: str = "", base_path: str = "", own: str = OWN) -> TestClient:
    routes = [
        WebSocketRoute(base_path + STREAM, _stream),
        Route("/{path:path}", _reached, methods=["GET", "PUT", "DELETE", "POST"]),
    ]
    guards = [Middleware(SecurityHeaders), Middleware(AccessGuard, token=token, base_path=base_path)]
    return TestClient(Starlette(routes=routes, middleware=guards), base_url=own, follow_redirects=False)


def is_open(reached: TestClient, path: str = STREAM, **headers: str) -> bool:
    """Whether a websocket reaches the dashboard."""
    try:
        with reached.websocket_connect(f"ws://{reached.base_url.netloc.decode()}{path}", headers=headers) as stream:
            return stream.receive_text() == "reached"
    except WebSocketDisconnect:
        return False


@pytest.fixture
def option(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """``option(name, value)`` sets an option of Streamlit for one test."""
    kept = config.get_option
    given: dict[str, Any] = {}
    monkeypatch.setattr(config, "get_option", lambda name: given[name] if name in given else kept(name))
    return given.__setitem__


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_name_reaches_nothing(host: str) -> None:
    reached = client()
    assert {reached.get(path, headers={"host": host}).status_code for path in PATHS} == {403}
    assert reached.put("/_stcore/upload_file/a/b", headers={"host": host}).status_code == 403
    assert not is_open(reached, host=host)


@pytest.mark.parametrize("host", ["localhost:8501", "LOCALHOST", "127.0.0.1", "[::1]:8501", "localhost.:8501"])
def test_local_names_reach_the_dashboard(host: str) -> None:
    assert client().get("/tasks", headers={"host": host}).text == "reached"
    assert is_open(client(), host=host)


def test_without_allowed_hosts_nothing_is_reached(option: Callable[[str, Any], None]) -> None:
    option("server.allowedHosts", [])
    assert client().get("/").status_code == 403
    assert not is_open(client())


def test_a_further_name_is_allowed_by_configuration(option: Callable[[str, Any], None]) -> None:
    option("server.allowedHosts", [*LOCAL_HOSTS, "tasklens.example"])
    origin = "https://tasklens.example"
    assert client().get("/", headers={"host": "tasklens.example", "origin": origin}).status_code == 200
    assert is_open(client(), host="tasklens.example", origin=origin)
    assert not is_open(client(), host="other.example")


@given(st.text(st.characters(codec="latin-1"), max_size=30) | st.from_regex(r"[a-z0-9.:@/\[\]-]{0,30}", fullmatch=True))
def test_any_text_is_either_a_local_name_or_refused(host: str) -> None:
    if is_known_host(host):
        name = host.strip().lower().rpartition(":")[0] if ":" in host and not host.endswith("]") else host.lower()
        assert name.strip("[].:") in {one.strip(":") for one in LOCAL_HOSTS}


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_page_reaches_nothing(origin: str) -> None:
    reached = client()
    assert not is_open(reached, origin=origin)
    for method in ("GET", "PUT", "DELETE", "POST"):
        assert reached.request(method, "/_stcore/upload_file/a/b", headers={"origin": origin}).status_code == 403


def test_own_pages_and_programs_reach_the_dashboard() -> None:
    assert is_open(client(), origin=OWN)
    assert is_open(client())
    assert client().put("/_stcore/upload_file/a/b", headers={"origin": OWN}).status_code == 200


@pytest.mark.parametrize("token", ["", TOKEN])
def test_every_answer_forbids_framing_and_loading_from_elsewhere(token: str) -> None:
    for path in PATHS:
        headers = client(token).get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
    policy = dict(part.split(maxsplit=1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["frame-ancestors"] == "'self'"
    assert "http" not in HEADERS["Content-Security-Policy"]
    assert "*" not in HEADERS["Content-Security-Policy"]


def test_without_the_token_only_the_health_check_answers() -> None:
    closed = client(TOKEN)
    assert {path for path in PATHS if closed.get(path).status_code != 403} == {HEALTH}
    assert closed.put("/_stcore/upload_file/a/b").status_code == 403
    assert not is_open(closed)


@pytest.mark.parametrize("given", ["", "a-token", TOKEN + "x", TOKEN.upper(), "\u00e9\u20ac", "0"])
def test_a_wrong_token_is_refused(given: str) -> None:
    closed = client(TOKEN)
    assert closed.get("/", params={"token": given}).status_code == 403
    assert closed.get("/", headers={"cookie": f"tasklens-8501={given}"}).status_code == 403 if given.isascii() else True
    assert not closed.cookies


def test_the_token_becomes_a_cookie_and_leaves_the_address() -> None:
    opened = client(TOKEN)
    answer = opened.get(f"/tasks?workspace=a%26b&token={TOKEN}&empty=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks?workspace=a%26b&empty=")
    cookie = answer.headers["set-cookie"].lower()
    assert TOKEN not in cookie
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert opened.get("/tasks").text == "reached"
    assert opened.put("/_stcore/upload_file/a/b").text == "reached"
    assert is_open(opened)


def test_the_cookie_of_another_port_or_token_opens_nothing() -> None:
    opened = client(TOKEN)
    opened.get(f"/?token={TOKEN}")
    (value,) = opened.cookies.values()
    for other, name in ((client(TOKEN + "2"), "tasklens-8501"), (client(TOKEN), "tasklens-8502")):
        assert other.get("/", headers={"cookie": f"{name}={value}"}).status_code == 403
    assert client(TOKEN).get("/", headers={"cookie": f"tasklens-8501={TOKEN}"}).status_code == 403


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "/%5Cevil.example", "/%2F/evil.example"])
def test_the_redirect_stays_on_the_dashboard(path: str) -> None:
    answer = client(TOKEN).get(f"{OWN}{path}?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith(("//", "/\\"))


def test_below_a_base_path() -> None:
    closed = client(TOKEN, base_path="/lens")
    assert closed.get("/lens" + HEALTH).text == "reached"
    assert closed.get("/lens/").status_code == 403
    answer = closed.get(f"/lens/?token={TOKEN}")
    assert answer.headers["location"] == "/lens/"
    assert "Path=/lens;" in answer.headers["set-cookie"]
    assert is_open(closed, "/lens" + STREAM)


def test_a_login_replaces_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "is_login_configured", lambda: True)
    assert client(TOKEN).get("/").text == "reached"
    assert is_open(client(TOKEN))
    assert client(TOKEN).get("/", headers={"host": "evil.example"}).status_code == 403


def test_who_is_reached_from_outside_asks_for_token_or_login(
    monkeypatch: pytest.MonkeyPatch, option: Callable[[str, Any], None]
) -> None:
    """Whatever started the server: ``uvicorn app:app --host 10.0.0.5`` passes the check of the start by."""
    outside = "http://10.0.0.5:8501"
    option("server.allowedHosts", ["10.0.0.5"])
    assert client(own=outside).get("/").status_code == 403
    assert not is_open(client(own=outside))
    monkeypatch.setattr(middleware, "is_login_configured", lambda: True)
    assert client(own=outside).get("/").text == "reached"


def test_counts_of_sessions_are_nobodys_business() -> None:
    opened = client(TOKEN)
    opened.get(f"/?token={TOKEN}")
    assert opened.get(METRICS).status_code == 404
    assert client().get(METRICS).status_code == 404
