"""The start: who must prove who they are, what is printed, what the command hands over, the addresses of the pages."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit import config

from core.cli import dashboard as command
from core.runtime.access import LOCAL_HOSTS, MIN_TOKEN_LENGTH, TOKEN_VARIABLE, WILDCARDS, stored_token
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.roots import ROOTS_VARIABLE, is_below_roots, roots
from core.ui.server import rules, start
from core.ui.server.pages import page_routes
from core.ui.server.rules import check_start
from core.ui.shell.navigation import DEFAULT_PAGE, TITLES

TOKEN = "a-token-that-is-long-enough"
OUTSIDE = (None, *WILDCARDS, "10.0.0.5", "2001:db8::1", "tasklens.example", "127.0.0.1.example")


class Started(Exception):
    """In place of the server, with its arguments."""


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Options of Streamlit for one test."""
    given: dict[str, object] = {}
    kept = config.get_option
    monkeypatch.setattr(config, "get_option", lambda name: given[name] if name in given else kept(name))
    return given


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The arguments of the server that a command would have started."""
    found: list[str] = []

    def start_process(_: str, given: list[str]) -> None:
        found.extend(given)
        raise Started

    monkeypatch.setattr(os, "execv", start_process)
    monkeypatch.setenv(TOKEN_VARIABLE, "")  # what is set here is restored after the test
    monkeypatch.delenv(TOKEN_VARIABLE)
    monkeypatch.setenv(ROOTS_VARIABLE, "")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return found


@pytest.mark.parametrize("address", OUTSIDE)
def test_reached_from_outside_it_needs_token_or_login(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError):
        check_start(address, "")
    check_start(address, TOKEN)
    monkeypatch.setattr(rules, "is_login_configured", lambda: True)
    check_start(address, "")


@pytest.mark.parametrize("address", [*LOCAL_HOSTS, "127.0.0.2"])
def test_on_loopback_it_needs_neither(address: str) -> None:
    check_start(address, "")


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(UserError):
        check_start("127.0.0.1", "secret")


def test_the_token_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    monkeypatch.setenv(ROOTS_VARIABLE, str(Path.cwd()))
    (guard,) = [one for one in start.app_options()["middleware"] if "token" in one.kwargs]
    assert guard.kwargs["token"] == TOKEN
    assert TOKEN_VARIABLE not in os.environ


def test_without_roots_the_home_and_the_working_folder_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOTS_VARIABLE, "")
    monkeypatch.delenv(ROOTS_VARIABLE)
    start.app_options()
    assert {Path.home().resolve(), Path.cwd().resolve()} <= set(roots())


def test_roots_that_are_links_are_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path / "link"))
    start.app_options()
    assert is_below_roots(tmp_path / "link" / "images")
    assert not is_below_roots(tmp_path / "other")


@pytest.mark.parametrize(
    ("address", "hosts", "expected"),
    [
        ("127.0.0.1", LOCAL_HOSTS, ["127.0.0.1"]),
        ("localhost", LOCAL_HOSTS, ["127.0.0.1"]),
        ("127.0.0.1", [*LOCAL_HOSTS, "tasklens.example"], ["127.0.0.1"]),
        ("::1", LOCAL_HOSTS, ["::1"]),
        ("0.0.0.0", [*LOCAL_HOSTS, "gpu7", "*.example"], ["127.0.0.1", "gpu7"]),
        ("10.0.0.5", [*LOCAL_HOSTS, "10.0.0.5", "gpu7"], ["10.0.0.5", "gpu7"]),
    ],
)
def test_the_printed_addresses_reach_this_server_only(
    address: str, hosts: list[str], expected: list[str], options: dict[str, object]
) -> None:
    """``localhost`` can mean ::1, where another user's server could wait for the token."""
    options.update({"server.address": address, "server.allowedHosts": hosts})
    urls = [urlsplit(url) for url in start.addresses(TOKEN)]
    assert [url.hostname for url in urls] == expected
    assert {url.query for url in urls} == {f"token={TOKEN}"}
    assert {urlsplit(url).query for url in start.addresses("")} == {""}


def test_the_browser_is_not_given_the_token_as_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    url = f"http://127.0.0.1:8501/?token={TOKEN}"
    with start.redirect_file(url) as address:
        page = Path(url2pathname(unquote(urlsplit(address).path)))
        assert TOKEN not in address
        assert url in page.read_text()
        assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    assert not page.exists()


def test_the_command_hands_the_token_over_in_the_environment(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(Started):
        command.dashboard(root=[tmp_path], allowed_host=["tasklens.example"], open_=False, port=8600)
    token = os.environ[TOKEN_VARIABLE]
    assert len(token) >= MIN_TOKEN_LENGTH
    assert not [one for one in arguments if token in one]
    assert arguments[0] == sys.executable
    assert {"--server.port=8600", "--server.address=127.0.0.1", "--server.headless=true"} < set(arguments)
    allowed = [one.partition("=")[2] for one in arguments if one.startswith("--server.allowedHosts=")]
    assert allowed == [*LOCAL_HOSTS, "tasklens.example"]
    assert tmp_path.resolve() in roots()
    assert Path.home().resolve() not in roots()


def test_the_next_start_has_the_same_token(arguments: list[str], tmp_path: Path) -> None:
    """So that open tabs connect again; another home has another one."""
    tokens = []
    for home in ("one", "one", "two"):
        os.environ[HOME_VARIABLE] = str(tmp_path / home)
        with pytest.raises(Started):
            command.dashboard()
        tokens.append(os.environ.pop(TOKEN_VARIABLE))
    assert tokens[0] == tokens[1] != tokens[2]
    assert stat.S_IMODE((tmp_path / "one" / command.TOKEN_FILE).stat().st_mode) == 0o600


def test_a_token_that_others_can_read_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for text, mode in ((TOKEN, 0o644), ("short", 0o600), ("", 0o600), ("\u00e9" * 20, 0o600)):
        file.write_text(text)
        file.chmod(mode)
        token = stored_token(file)
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (token, 0o600)
        assert token != text
        assert stored_token(file) == token


def test_a_token_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    """The token is then that of one start: a link or a pipe that somebody placed there is not followed."""
    target = tmp_path / "target"
    target.write_text(TOKEN)
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder", "target/below"):
        token = stored_token(tmp_path / name)
        assert len(token) >= MIN_TOKEN_LENGTH
        assert token != TOKEN
    assert target.read_text() == TOKEN


@pytest.mark.parametrize("address", WILDCARDS)
def test_a_wildcard_is_no_name(address: str, arguments: list[str]) -> None:
    with pytest.raises(Started):
        command.dashboard(address=address)
    assert f"--server.allowedHosts={address}" not in arguments
    assert f"--server.address={address}" in arguments


def test_a_start_without_a_token(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with pytest.raises(Started):
        command.dashboard(token=False)
    assert TOKEN_VARIABLE not in os.environ


def test_a_root_that_is_no_folder_is_refused(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        command.dashboard(root=[tmp_path / "missing"])
    assert not arguments


@pytest.mark.parametrize("base_path", ["", "/lens"])
def test_addresses_of_pages(base_path: str) -> None:
    reached = TestClient(Starlette(routes=page_routes(base_path)), follow_redirects=False)
    pages = {name: reached.get(f"{base_path}/{name}") for name in ["", *TITLES]}
    assert {name for name, answer in pages.items() if answer.status_code != 200} == {DEFAULT_PAGE}
    assert "BACKEND_BASE_URL" in pages[""].text
    assert pages["tasks"].text == pages[""].text
    unknown = reached.get(f"{base_path}/nonsense")
    assert unknown.status_code == 404
    assert all(f'href="./{name}"' in unknown.text for name in TITLES if name != DEFAULT_PAGE)
    below = reached.get(f"{base_path}/tasks/a/b")
    assert below.status_code == 404
    assert 'href="../../tasks"' in below.text
    assert reached.get(f"{base_path}/tasks/").status_code != 200  # Streamlit leads to the page
    assert "<script" not in reached.get(f"{base_path}/%3Cscript%3E").text
    answer = reached.get(f"{base_path}/{DEFAULT_PAGE}?workspace=a%26b")
    assert str(answer.url.join(answer.headers["location"])) == f"http://testserver{base_path}/?workspace=a%26b"
