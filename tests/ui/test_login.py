"""Who decides, where the server is shared and asks for a login."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit import config

from core.runtime.errors import UserError
from core.ui.server.login_settings import LoginSettings, is_login_configured, login_settings, reviewer_name
from core.workspace.workspace import Workspace
from tests.ui.conftest import Open

WHOLE = f"""
[auth]
redirect_uri = "https://lab.example/oauth2callback"
cookie_secret = "{"c" * 32}"
"""
UNSAFE: dict[str, bytes] = {
    "not closed": WHOLE.replace('callback"', "callback").encode(),
    "other encoding": WHOLE.encode() + b"# \xff",
    "empty table": b"[auth]",
    "no table": b"auth = true",
    "short secret": WHOLE.replace("c" * 32, "secret").encode(),
    "elsewhere": WHOLE.replace("/oauth2callback", "/").encode(),
    "unknown setting": WHOLE.encode() + b"[tasklens]\nallowed_email = ['ann@example.org']",
    "no list": WHOLE.encode() + b"[tasklens]\nallowed_emails = 'ann@example.org'",
}
Configure = Callable[[bytes], None]


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Configure]:
    """``configure(content)`` writes the only secrets.toml that there is."""
    path, before = tmp_path / "secrets.toml", config.get_option("secrets.files")

    def write(content: bytes) -> None:
        path.write_bytes(content)

    config.set_option("secrets.files", [str(path)])
    st.secrets._reset()
    yield write
    config.set_option("secrets.files", before)
    st.secrets._reset()


def test_without_a_login_the_name_is_free(show: Open, empty: Workspace) -> None:
    name = show("load").text_input(key="reviewer")
    assert (name.value, name.disabled) == ("me", False)


def test_a_login_gives_the_name(show: Open, empty: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "user", {"is_logged_in": True, "name": "Ana Example", "email": "ana@example.com"})
    name = show("load").text_input(key="reviewer")
    assert (name.value, name.disabled) == ("Ana Example", True)


def test_a_login_without_a_name_does_not_free_it(show: Open, empty: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "user", {"is_logged_in": True, "sub": "248289761001"})
    name = show("load").text_input(key="reviewer")
    assert (name.value, name.disabled) == ("248289761001", True)


def test_nobody_sees_anything_before_the_login(show: Open, empty: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "user", {"is_logged_in": False})
    page = show("overview")
    assert [button.label for button in page.button] == ["Log in"]
    assert not page.text_input
    assert not page.selectbox


@pytest.mark.parametrize("page", ["overview", "load"])
def test_a_secrets_file_that_cannot_be_read_shows_nothing(
    show: Open, empty: Workspace, configure: Configure, page: str
) -> None:
    """Streamlit takes it for none, which would open the dashboard to everybody."""
    configure(UNSAFE["not closed"])
    shown = show(page)
    assert len(shown.error) == 1
    assert not [*shown.button, *shown.text_input, *shown.selectbox]


@pytest.mark.parametrize("page", ["overview", "load"])
def test_an_account_that_is_not_allowed_can_only_log_out(
    show: Open, empty: Workspace, configure: Configure, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    configure(f"{WHOLE}[tasklens]\nallowed_emails = ['ann@example.org']".encode())
    monkeypatch.setattr(st, "user", {"is_logged_in": True, "name": "Ann", "email": "mallory@example.com"})
    shown = show(page)
    assert len(shown.error) == 1
    assert [button.label for button in shown.button] == ["Log out"]
    assert not [*shown.text_input, *shown.selectbox]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_login_that_is_not_whole_is_an_error_and_counts_as_one(configure: Configure, name: str) -> None:
    configure(UNSAFE[name])
    with pytest.raises(UserError) as raised:
        login_settings()
    assert "c" * 32 not in str(raised.value)
    assert is_login_configured()


def test_settings_of_the_login(configure: Configure) -> None:
    assert login_settings() is None
    configure(WHOLE.encode() + b"[tasklens]\nreviewer_claim = 'email'\nallowed_emails = ['@example.org']")
    assert login_settings() == LoginSettings(reviewer_claim="email", allowed_emails=("@example.org",))


def test_secrets_of_something_else_require_no_login(configure: Configure) -> None:
    configure(b"[database]\npassword = 'x'")
    assert login_settings() is None
    assert not is_login_configured()


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ({"name": "Ana", "sub": "1"}, "Ana"),
        ({"name": " \n\x00 ", "preferred_username": "ana", "sub": "1"}, "ana"),
        ({"name": ["Ana"], "email": "ana@example.org", "sub": "1"}, "ana@example.org"),
        ({"name": "Ana\r\n=1+1\x1b[2J", "sub": "1"}, "Ana =1+1[2J"),
        ({"name": None, "sub": "1"}, "1"),
    ],
)
def test_the_first_claim_with_a_name_is_the_reviewer(user: dict[str, Any], name: str) -> None:
    assert reviewer_name(user, LoginSettings()) == name


def test_a_claim_that_must_name_the_reviewer_has_no_substitute() -> None:
    settings = LoginSettings(reviewer_claim="email")
    assert reviewer_name({"name": "Ann", "email": "mallory@example.org"}, settings) == "mallory@example.org"
    for user in ({"name": "Ann", "sub": "1"}, {"name": "Ann", "email": ""}):
        with pytest.raises(UserError):
            reviewer_name(user, settings)


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        ({"email": "Ann@Example.org", "email_verified": True}, True),
        ({"email": "bob@lab.example"}, True),
        ({"email": "bob@lab.example", "email_verified": False}, False),
        ({"email": "bob@lab.example", "email_verified": "false"}, False),
        ({"email": "bob@other.lab.example"}, False),
        ({"email": "ann@example.org.evil.example"}, False),
        ({"email": "lab.example"}, False),
        ({"email": ""}, False),
        ({"email": ["ann@example.org"]}, False),
        ({"name": "ann@example.org"}, False),
    ],
)
def test_allowed_emails(user: dict[str, Any], allowed: bool) -> None:
    settings = LoginSettings(allowed_emails=("ann@example.org", "@lab.example"))
    if allowed:
        assert reviewer_name({"sub": "1", **user}, settings)
    else:
        with pytest.raises(UserError):
            reviewer_name({"sub": "1", **user}, settings)
