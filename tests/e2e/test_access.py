"""The door of the dashboard in a real browser: the token, pages of other local servers, addresses of pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from core.runtime.access import TOKEN_VARIABLE
from core.ui.server.start import redirect_file
from core.ui.shell import navigation
from tests.e2e.server import ROOT

TOKEN = "a-token-that-is-long-enough"
# What a page of another server on this machine tries: a frame, a websocket, and two ways to read.
_ATTACK = """
async url => {
    const frame = document.createElement("iframe");
    frame.src = url;
    const framed = new Promise(done => { frame.onload = done; });
    document.body.append(frame);
    const socket = new WebSocket(url.replace("http", "ws") + "/_stcore/stream", ["streamlit"]);
    const stream = new Promise(done => { socket.onopen = () => done("open"); socket.onerror = () => done("refused"); });
    const text = fetch(url + "/_stcore/host-config", {credentials: "include"}).then(() => "read", () => "refused");
    const blind = fetch(url + "/favicon.png", {mode: "no-cors", credentials: "include"})
        .then(() => "read", () => "refused");
    await framed;  // also where the browser shows its error page
    return [await stream, await text, await blind];
}
"""


@pytest.fixture(scope="module")
def url(serve: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("home")
    return serve(ROOT / "app.py", env={"TASKLENS_HOME": str(home), TOKEN_VARIABLE: TOKEN})


@pytest.fixture
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """A profile without cookies."""
    with browser.new_context() as context:
        yield context


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of another server on this machine."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "index.html").write_text("<!DOCTYPE html><title>Elsewhere</title><body></body>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{other.server_port}/"
        other.shutdown()


def heading(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", name=navigation.TITLES[name], exact=True)).to_be_visible()


def test_the_address_with_the_token_opens_the_dashboard(profile: BrowserContext, url: str, elsewhere: str) -> None:
    """Opened by the file that the browser is given, then by links, by itself and from another page; then no more."""
    page = profile.new_page()
    answer = page.goto(f"{url}/tasks")
    assert answer is not None
    assert answer.status == 403
    with redirect_file(f"{url}/?token={TOKEN}") as address:
        page.goto(address)
        heading(page, "overview")
    assert page.url == f"{url}/"
    page.goto(f"{url}/overview?workspace=demo-colour")
    heading(page, "overview")
    assert page.url.startswith(f"{url}/?workspace=demo-colour")
    page.goto(elsewhere)
    page.evaluate("url => { window.location = url; }", f"{url}/load/")  # a link on a page of another server
    heading(page, "load")
    profile.clear_cookies()
    answer = page.goto(f"{url}/")
    assert answer is not None
    assert answer.status == 403


def test_a_page_of_another_local_server_gets_nothing(profile: BrowserContext, url: str, elsewhere: str) -> None:
    """The browser has the token's cookie, and sends it along: all ports of a machine are one site."""
    page = profile.new_page()
    page.goto(f"{url}/?token={TOKEN}")
    heading(page, "overview")
    page.goto(elsewhere)
    assert page.evaluate(_ATTACK, url) == ["refused", "refused", "refused"]
    assert [frame.url for frame in page.frames if frame != page.main_frame] == ["chrome-error://chromewebdata/"]
