"""A login with a real provider of OpenID Connect on this machine: before it, during it and after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from oidc_provider_mock import User, run_server_in_thread
from playwright.sync_api import Browser, BrowserContext, Page, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from core.workspace.workspace import Workspace
from tests.e2e.conftest import Serve
from tests.e2e.review_pages import LIMIT, eventually, grid, make_workspace, press, tile, verdict
from tests.e2e.server import ROOT
from tests.e2e.widgets import settled

ANA, BOB, MALLORY = "ana", "bob", "mallory"
COOKIE = "_streamlit_user"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The address of a provider with three accounts, two of which may use the dashboard."""
    people = [
        User(sub=ANA, claims={"name": "Ana Example", "email": "ana@lab.example", "email_verified": True}),
        User(sub=BOB, claims={"email": "bob@lab.example"}),
        User(sub=MALLORY, claims={"name": "Ana Example", "email": "ana@lab.example", "email_verified": False}),
    ]
    with run_server_in_thread(require_nonce=True, user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def shared(serve: Serve, provider: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Workspace]:
    """The address of a dashboard with that login, and its workspace."""
    folder = tmp_path_factory.mktemp("login")
    secrets = folder / "secrets.toml"
    secrets.write_text(
        f"""
        [auth]
        redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
        cookie_secret = "{"c" * 32}"
        client_id = "tasklens"
        client_secret = "s"
        server_metadata_url = "{provider}/.well-known/openid-configuration"
        [tasklens]
        allowed_emails = ["@lab.example"]
        """
    )
    workspace = make_workspace(folder, "shared")
    environment = {"TASKLENS_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return serve(ROOT / "app.py", environment, (f"--secrets.files={secrets}",)), workspace


@pytest.fixture
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A browser of somebody who has not been here before."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(LIMIT)
    yield context
    context.close()


def log_in(context: BrowserContext, url: str, person: str) -> Page:
    page = context.new_page()
    page.goto(f"{url}/review")
    page.get_by_role("link", name="Log in").click()
    page.get_by_role("button", name=person, exact=True).click()
    page.wait_for_url(f"{url}/**")
    return page


def open_queue(page: Page, url: str) -> None:
    page.goto(f"{url}/review?workspace=shared")
    expect(tile(page, 0)).to_be_focused()
    settled(page)


def forged_session(url: str, context: BrowserContext) -> ClientConnection:
    """A websocket with the cookies of a browser, and without its page."""
    cookies = httpx.Cookies({one["name"]: one["value"] for one in context.cookies(url)})
    httpx.Client(cookies=cookies).get(url).raise_for_status()
    header = "; ".join(f"{name}={value}" for name, value in cookies.items())
    address = url.replace("http", "ws") + "/_stcore/stream"
    protocols = [Subprotocol("streamlit"), Subprotocol(cookies["_streamlit_xsrf"])]
    return connect(address, subprotocols=protocols, origin=Origin(url), additional_headers={"Cookie": header})


def run_review(session: ClientConnection, *states: WidgetState) -> tuple[str, bytes]:
    """Run the Review page with values of widgets; return the id of the reviewer's field, and all that is drawn."""
    message = BackMsg()
    message.rerun_script.query_string = "workspace=shared"
    message.rerun_script.page_name = "review"
    message.rerun_script.widget_states.widgets.extend(states)
    session.send(message.SerializeToString())
    field_id, drawn = "", b""
    answer = ForwardMsg()
    while answer.script_finished != ForwardMsg.FINISHED_SUCCESSFULLY or answer.WhichOneof("type") != "script_finished":
        content = session.recv(timeout=LIMIT / 1000)
        assert isinstance(content, bytes)
        answer.ParseFromString(content)
        element = answer.delta.new_element
        if element.text_input.label == "Reviewer":
            field_id = element.text_input.id
        drawn += content
    return field_id, drawn


def reviewers(workspace: Workspace) -> list[str]:
    return [entry.reviewer for entry in workspace.decisions.history()]


def test_a_login_from_the_first_visit_to_the_last(visitor: BrowserContext, shared: tuple[str, Workspace]) -> None:
    url, workspace = shared
    page = log_in(visitor, url, ANA)
    open_queue(page, url)
    field = page.get_by_label("Reviewer", exact=True).first
    expect(field).to_have_value("Ana Example")
    expect(field).to_be_disabled()

    # A browser that was tampered with sends another name for the field; the server does not take it.
    with forged_session(url, visitor) as session:
        field_id, _ = run_review(session)
        _, drawn = run_review(session, WidgetState(id=field_id, string_value="Mallory"))
    assert b"Ana Example" in drawn
    assert b"Mallory" not in drawn

    grid(page).get_by_role("option").first.focus()
    press(page, "k")
    expect(verdict(page, 0)).not_to_be_empty()
    eventually(lambda: reviewers(workspace) == ["Ana Example"])

    # The cookie is the login: altered, it opens nothing, and unaltered, it does so in any browser.
    cookie = next(one for one in visitor.cookies() if one["name"] == COOKIE)
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    value = cookie["value"]
    altered = value[:-5] + ("A" if value[-5] != "A" else "B") + value[-4:]
    assert httpx.get(f"{url}/tasks", cookies={COOKIE: altered}).status_code == 403
    assert httpx.get(f"{url}/tasks", cookies={COOKIE: value}).status_code == 200

    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="End session").click()  # at the provider
    expect(page.get_by_role("link", name="Log in")).to_be_visible()
    assert [one["name"] for one in visitor.cookies() if one["name"].startswith(COOKIE)] == []
    page.goto(f"{url}/review?workspace=shared")
    expect(page.get_by_role("link", name="Log in")).to_be_visible()


@pytest.mark.slow
def test_without_a_name_the_address_is_the_reviewer(visitor: BrowserContext, shared: tuple[str, Workspace]) -> None:
    page = log_in(visitor, shared[0], BOB)
    expect(page.get_by_label("Reviewer", exact=True).first).to_have_value("bob@lab.example")


@pytest.mark.slow
def test_an_unconfirmed_address_is_nobodys(visitor: BrowserContext, shared: tuple[str, Workspace]) -> None:
    page = log_in(visitor, shared[0], MALLORY)
    expect(page.get_by_role("link", name="Log out")).to_be_visible()
    assert page.request.get(f"{shared[0]}/tasks").status == 403


def test_an_answer_of_the_provider_that_nobody_asked_for_logs_nobody_in(
    visitor: BrowserContext, shared: tuple[str, Workspace], provider: str
) -> None:
    """Login CSRF: a link makes a browser log in as the attacker. Also replayed and refused answers."""
    url, _ = shared
    asked = httpx.get(f"{url}/", follow_redirects=False)
    link = re.search(r'href="(/auth/login[^"]*)"', asked.text)
    assert link
    mallory = httpx.Client(base_url=url)
    to_provider = mallory.get(link[1]).headers["location"]
    assert to_provider.startswith(provider)
    answer = httpx.post(to_provider, data={"sub": ANA}).headers["location"]
    denied = httpx.post(to_provider, data={"action": "deny"}).headers["location"]
    page = visitor.new_page()
    for stolen in (answer, denied, f"{url}/oauth2callback?code=x&state=y", f"{url}/oauth2callback?error={quote('x')}"):
        page.goto(stolen)
        expect(page.get_by_role("link", name="Log in")).to_be_visible()
        assert [one["name"] for one in visitor.cookies() if one["name"].startswith(COOKIE)] == []
    assert COOKIE in mallory.get(answer).cookies
    mallory.cookies.delete(COOKIE)
    assert COOKIE not in mallory.get(answer).cookies  # a second time
