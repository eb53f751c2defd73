"""A real server, talked to as a page at a foreign name would after DNS rebinding, and started on all addresses."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from core.runtime.access import TOKEN_VARIABLE
from core.runtime.files import HOME_VARIABLE
from tests.e2e.server import ROOT, Server, start_server

TOKEN = "a-token-that-is-long-enough"
AUDIT = Path(__file__).parent / "audit"
_LOOPBACK = ("127.0.0.1", "::1", "localhost", "None")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    env = {
        HOME_VARIABLE: str(folder / "home"),
        TOKEN_VARIABLE: TOKEN,
        "PYTHONPATH": os.pathsep.join([str(AUDIT), str(ROOT)]),
        "TASKLENS_AUDIT": str(folder / "audit.txt"),
        "OMP_NUM_THREADS": "1",
    }
    started = start_server(ROOT / "app.py", folder, env)
    yield started
    started.stop()


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    """Send a request with exactly these headers; a Host among them replaces the usual one."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def stream_status(server: Server, **headers: str) -> int:
    """The status of a websocket's handshake; 101: it is open."""
    own = urlsplit(server.url)
    origin = headers.pop("Origin", None)
    host = headers.pop("Host", own.netloc)
    try:
        # The address is the one to connect to, the name that of the page.
        with connect(
            f"ws://{host}/_stcore/stream",
            address=(own.hostname, own.port),
            subprotocols=[Subprotocol("streamlit")],
            additional_headers=headers,
            origin=origin,  # type: ignore[arg-type]
            open_timeout=20,
            proxy=None,
        ):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def cookie(server: Server) -> str:
    answer = ask(server, f"/?token={TOKEN}")
    assert answer.status == 303
    return answer.headers["Set-Cookie"].partition(";")[0]


def test_a_rebound_name_reaches_nothing(server: Server) -> None:
    """A page of evil.example, whose name now resolves to 127.0.0.1; its name gives it away even with the cookie."""
    host = f"evil.example:{urlsplit(server.url).port}"
    for with_cookie in ({}, {"Cookie": cookie(server)}):
        for path in ("/", "/tasks", "/_stcore/health", "/_stcore/host-config", "/favicon.png", "/media/x.png"):
            assert ask(server, path, Host=host, **with_cookie).status == 403
        assert ask(server, "/_stcore/upload_file/a/b", "PUT", Host=host, **with_cookie).status == 403
        assert stream_status(server, Host=host, Origin=f"http://{host}", **with_cookie) == 403


def test_a_page_of_another_local_server_opens_no_websocket(server: Server) -> None:
    """Browsers send it the cookie, as all ports of one machine are one site."""
    own = {"Cookie": cookie(server)}
    assert stream_status(server, Origin=server.url, **own) == 101
    assert stream_status(server, **own) == 101
    for origin in ("http://127.0.0.1:9999", "http://localhost:9999", "http://evil.example", "null"):
        assert stream_status(server, Origin=origin, **own) == 403


def test_without_the_token_nothing_is_open(server: Server) -> None:
    assert stream_status(server, Origin=server.url) == 403
    assert stream_status(server, Origin=server.url, Cookie="tasklens-8501=x") == 403
    assert ask(server, "/").status == 403
    assert ask(server, "/_stcore/upload_file/a/b", "PUT").status == 403
    assert ask(server, "/_stcore/health").status == 200


def test_with_it_the_dashboard_is(server: Server) -> None:
    own = {"Cookie": cookie(server)}
    assert {ask(server, path, **own).status for path in ("/", "/tasks", "/favicon.png", "/_stcore/host-config")} == {
        200
    }
    assert ask(server, "/_stcore/metrics", **own).status == 404
    answer = ask(server, "/tasks/?workspace=tiny", **own)
    assert (answer.status, answer.headers["Location"]) == (301, "/tasks?workspace=tiny")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_the_token_is_in_no_argument(server: Server) -> None:
    assert TOKEN.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()


def test_no_other_machine_is_looked_up_or_connected_to(server: Server, folder: Path) -> None:
    """Streamlit looks up its external address when it greets, and when it compares origins."""
    stream_status(server, Origin="http://other.example", Cookie=cookie(server))
    calls = [line.split(" ", 1) for line in (folder / "audit.txt").read_text().splitlines()]
    assert ["socket.bind", "127.0.0.1"] in calls  # the record works
    assert not [call for call in calls if call[1] not in _LOOPBACK]


@pytest.mark.parametrize("address", ["0.0.0.0", ""])
def test_open_to_everybody_it_does_not_start(address: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.address", address]
    env = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    ended = subprocess.run(
        [*command, "--server.port", "0", "--server.headless", "true"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**env, HOME_VARIABLE: str(tmp_path), "HOME": str(tmp_path)},
        timeout=60,
    )
    assert ended.returncode == 2
    assert "tasklens dashboard" in ended.stderr
    assert "Traceback" not in ended.stderr
