"""A real server and a real browser for the tests in this folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, BrowserType, ConsoleMessage, Page, expect, sync_playwright

from core.workspace.workspace import Workspace
from tests.e2e.browser import CHROMIUM_ARGS, NO_CHROMIUM, chromium_path
from tests.e2e.review_pages import LIMIT, make_workspace, open_review
from tests.e2e.server import ROOT, Server, start_server

HERE = Path(__file__).resolve().parent
expect.set_options(timeout=LIMIT)
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_NO_OTHER_MACHINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
"""Rather than Playwright's routes, which switch the cache off."""
_FORGET = """
try {
    if (!sessionStorage.getItem("begun")) localStorage.clear();
    sessionStorage.setItem("begun", "1");
} catch {}  // about:blank has neither
document.addEventListener("DOMContentLoaded", () => {
    const still = document.createElement("style");
    still.textContent = "*, *::before, *::after { animation: none !important; }";
    document.head.append(still);
});
"""
"""Run before anything else in a page: the first of a tab finds an empty store, and spinners, which would draw sixty
pictures a second without a graphics card, stand still."""
_RUNNING: list[Server] = []
"""Every server that runs now; their logs are shown with a test that fails."""

Serve = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        for log in (server.log for server in _RUNNING):
            report.sections.append((f"server log {log.name}", log.read_text(errors="replace")[-8000:]))
    return report


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """`serve(script, env=None, args=())` starts a Streamlit server and returns its base URL.

    The server lives until the next one is started or the test module ends, so a module can share one.
    """
    folder, held = tmp_path_factory.mktemp("serve"), ExitStack()

    def start(script: str | Path, env: dict[str, str] | None = None, args: tuple[str, ...] = ()) -> str:
        held.close()
        return held.enter_context(_served(script, folder, env, args)).url

    with held:
        yield start


@contextmanager
def _served(*asked: Any) -> Iterator[Server]:
    try:
        server = start_server(*asked)
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)
    _RUNNING.append(server)
    try:
        yield server
    finally:
        _RUNNING.remove(server)
        server.stop()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the browser tests that share a server; its folder ``home`` holds their workspaces and image sets."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def app(folder: Path) -> Iterator[str]:
    """The address of the dashboard that they share."""
    with _served(ROOT / "app.py", folder, {"TASKLENS_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}) as server:
        yield server.url


@pytest.fixture(scope="session")
def chromium() -> Iterator[tuple[BrowserType, dict[str, Any]]]:
    """Chromium, and the arguments to start it."""
    path = chromium_path()
    if path is None:
        pytest.fail(NO_CHROMIUM, pytrace=False)
    with sync_playwright() as playwright:
        yield playwright.chromium, {"executable_path": path, "args": [*CHROMIUM_ARGS, _NO_OTHER_MACHINE]}


@pytest.fixture(scope="session")
def browser(chromium: tuple[BrowserType, dict[str, Any]]) -> Iterator[Browser]:
    """A browser for tests that need profiles of their own."""
    kind, arguments = chromium
    with kind.launch(**arguments) as started:
        yield started


@pytest.fixture(scope="session")
def profile(chromium: tuple[BrowserType, dict[str, Any]], folder: Path) -> Iterator[BrowserContext]:
    """The browser profile of all pages. What it stored is forgotten.

    It lies on the disk, as only there Chromium keeps compiled scripts, which halves the time of the next page.
    """
    kind, arguments = chromium
    context = kind.launch_persistent_context(folder / "profile", viewport={"width": 1400, "height": 900}, **arguments)
    context.set_default_timeout(LIMIT)
    context.add_init_script(_FORGET)
    yield context
    context.close()


def _leaves(url: str) -> bool:
    """True for a request to another machine."""
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob", "about") and parts.hostname not in _LOCAL_HOSTS


def _is_fault(said: ConsoleMessage) -> bool:
    """True for an error; the search of a plain Streamlit server, as some tests start, below a deep link is none."""
    probe = re.search(r"/\w+/_stcore/(health|host-config)$", said.location.get("url", ""))
    return said.type == "error" and not probe


@pytest.fixture
def page(profile: BrowserContext) -> Iterator[Page]:
    """A fresh page, 1400 x 900. Console errors, page errors and requests to elsewhere fail the test."""
    faults: list[str] = []
    profile.clear_cookies()
    tab = profile.new_page()
    tab.on("request", lambda asked: faults.append(f"request to {asked.url}") if _leaves(asked.url) else None)
    tab.on(
        "console",
        lambda said: faults.append(f"console: {said.text} {said.location.get('url', '')}") if _is_fault(said) else None,
    )
    tab.on("pageerror", lambda error: faults.append(f"page error: {error}"))
    tab.on("websocket", lambda ws: faults.append(f"websocket to {ws.url}") if _leaves(ws.url) else None)
    yield tab
    tab.close()
    if faults:
        pytest.fail("The browser saw:\n" + "\n".join(faults), pytrace=False)


@pytest.fixture
def workspace(folder: Path, request: pytest.FixtureRequest) -> Workspace:
    """A small one with a queue, for one test."""
    return make_workspace(folder, re.sub(r"\W+", "-", request.node.name)[:50])


@pytest.fixture
def review(page: Page, url: str, workspace: Workspace) -> Page:
    """Its Review page, on the server that the module names ``url``."""
    return open_review(page, url, workspace)
