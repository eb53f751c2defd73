"""The dashboard behind a reverse proxy with TLS, under a name that it was told, and under others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import BrowserType, Page, expect

from core.runtime.access import LOCAL_HOSTS
from core.workspace.workspace import Workspace
from tests.e2e.conftest import Serve
from tests.e2e.nginx import NAME, NO_NGINX, nginx_path, reverse_proxy
from tests.e2e.review_pages import LIMIT, decisions, eventually, make_workspace, press, tile
from tests.e2e.server import ROOT
from tests.e2e.widgets import settled

pytestmark = pytest.mark.slow
TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(scope="module")
def shared(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Workspace]]:
    """The address of the proxy, and a workspace behind it."""
    if nginx_path() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_NGINX)
    folder = tmp_path_factory.mktemp("proxy")
    workspace = make_workspace(folder, "shared")
    environment = {"TASKLENS_HOME": str(folder / "home"), "TASKLENS_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    hosts = tuple(f"--server.allowedHosts={host}" for host in (*LOCAL_HOSTS, NAME))
    backend = serve(ROOT / "app.py", environment, hosts)
    with reverse_proxy(int(backend.rpartition(":")[2]), folder) as url:
        yield url, workspace


@pytest.fixture
def page(chromium: tuple[BrowserType, dict[str, Any]], shared: tuple[str, Workspace]) -> Iterator[Page]:
    """A page of a browser for which the proxy's name is this machine."""
    kind, arguments = chromium
    rules = [one for one in arguments["args"] if not one.startswith("--host-resolver-rules")]
    rules.append(f"--host-resolver-rules=MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    with kind.launch(**arguments | {"args": rules}) as started:
        context = started.new_context(ignore_https_errors=True, viewport={"width": 1400, "height": 900})
        context.set_default_timeout(LIMIT)
        yield context.new_page()


def test_pages_decisions_and_uploads_pass_a_reverse_proxy(
    page: Page, shared: tuple[str, Workspace], tmp_path: Path
) -> None:
    url, workspace = shared
    page.goto(f"{url}/review?workspace=shared&token={TOKEN}")
    expect(tile(page, 0)).to_be_focused()
    settled(page)
    press(page, "k")
    eventually(lambda: [entry.verdict for entry in decisions(workspace).values()] == ["keep"])
    assert TOKEN not in page.url
    (cookie,) = (one for one in page.context.cookies() if one["name"].startswith("tasklens-"))
    assert (cookie["secure"], cookie["httpOnly"]) == (True, True)

    table = tmp_path / "decisions.csv"
    table.write_text("kind,image_id,verdict\n" + "image,mnist/0,keep\n" * 100_000)  # 2 MB: more than nginx allows
    page.goto(f"{url}/export?workspace=shared")
    with page.expect_response(lambda answer: "/upload_file/" in answer.url and answer.request.method == "PUT") as sent:
        page.locator("input[type=file]").first.set_input_files(table)
    assert sent.value.status == 204


@pytest.mark.parametrize("host", ["evil.example", f"{NAME}.evil.example", "127.0.0.1.evil.example"])
def test_another_name_is_refused_behind_the_proxy_too(shared: tuple[str, Workspace], host: str) -> None:
    port = urlsplit(shared[0]).port
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=False) as client:
        assert client.get(f"/?token={TOKEN}", headers={"Host": f"{host}:{port}"}).status_code == 403
        assert client.get(f"/?token={TOKEN}", headers={"Host": f"{NAME}:{port}"}).status_code == 303
