"""Who may pass where ``secrets.toml`` requires a login, and under which name; without a provider behind it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from streamlit.auth_util import set_cookie_with_chunks
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from core.runtime.errors import UserError
from core.ui.server.login_guard import OPEN_PATHS
from core.ui.server.login_settings import LoginSettings, is_login_configured, login_settings, reviewer_name
from core.ui.server.middleware import HEALTH
from tests.secrets_file import SECRET, SITE, WHOLE, Configure, secrets_file
from tests.server.test_guard import PATHS, client, is_open

UNSAFE: dict[str, bytes] = {
    "not closed": WHOLE.replace('callback"', "callback").encode(),
    "other encoding": WHOLE.encode() + b"# \xff",
    "empty table": b"[auth]",
    "no table": b"auth = true",
    "short secret": WHOLE.replace(SECRET, "secret").encode(),
    "elsewhere": WHOLE.replace("/oauth2callback", "/").encode(),
    "unknown setting": WHOLE.encode() + b"[tasklens]\nallowed_email = ['ann@example.org']",
    "no list": WHOLE.encode() + b"[tasklens]\nallowed_emails = 'ann@example.org'",
}
UPLOAD = "/_stcore/upload_file/session/file"
ANA = {"is_logged_in": True, "origin": SITE, "provider": "default", "name": "Ana", "sub": "1"}
MONTH_AND_A_DAY = 31 * 86400


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Configure]:
    with secrets_file(tmp_path) as write:
        yield write


@pytest.fixture
def required(configure: Configure) -> Configure:
    """The login is required by a whole file."""
    configure(WHOLE)
    return configure


def signed(claims: Any, secret: str = SECRET, name: str = USER_COOKIE_NAME) -> str:
    return create_signed_value(secret, name, json.dumps(claims)).decode()


def visitor(cookie: str = "") -> TestClient:
    made = client()
    if cookie:
        made.cookies.set(USER_COOKIE_NAME, cookie)
    return made


def passes(browser: TestClient, paths: tuple[str, ...] = PATHS) -> bool:
    """Whether everything is reached; else nothing is but the login."""
    answers = [browser.get(path) for path in paths if path != HEALTH]
    answers += [browser.put(UPLOAD, content=b"x"), browser.delete(UPLOAD), browser.post("/tasks")]
    reached = {answer.text == "reached" for answer in answers} | {is_open(browser)}
    assert len(reached) == 1
    assert browser.get(HEALTH).text == "reached"
    return reached.pop()


def test_without_a_login_nothing_is_reached_but_the_login(required: Configure) -> None:
    assert not passes(visitor())
    assert [visitor().get(path).text for path in OPEN_PATHS] == ["reached"] * len(OPEN_PATHS)
    assert visitor().get(OPEN_PATHS[0] + "/../../tasks").status_code == 403
    assert f'href="{OPEN_PATHS[0]}?provider=' in visitor().get("/").text


def test_a_login_opens_everything(required: Configure) -> None:
    assert passes(visitor(signed(ANA)))


def test_long_claims_come_in_several_cookies(required: Configure) -> None:
    browser = visitor()
    set_cookie_with_chunks(
        lambda name, value: browser.cookies.set(name, create_signed_value(SECRET, name, value).decode()),
        lambda name, value: create_signed_value(SECRET, name, value),
        USER_COOKIE_NAME,
        {**ANA, "groups": os.urandom(4000).hex()},
        cookie_attr_size=60,
    )
    assert len(browser.cookies) > 1
    assert passes(browser)
    browser.cookies.delete(f"{USER_COOKIE_NAME}_1")
    assert not passes(browser)


def test_forged_cookies_open_nothing(required: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    good = signed(ANA)
    payload, at, signature = good.rsplit(".", 2)
    mallory = signed({**ANA, "name": "Mallory"}).rsplit(".", 2)[0]
    forged = {
        "altered": f"{mallory}.{at}.{signature}",
        "cut": good[:-1],
        "no signature": payload,
        "other secret": signed(ANA, "d" * 32),
        "other cookie": signed(ANA, name="_streamlit_user_tokens"),
        "other site": signed({**ANA, "origin": "https://other.example"}),
        "no site": signed({key: value for key, value in ANA.items() if key != "origin"}),
        "logged out": signed({**ANA, "is_logged_in": False}),
        "truthy": signed({**ANA, "is_logged_in": "yes"}),
        "list": signed([ANA]),
        "null": signed(None),
        "empty": ".",
        "text": "x",
    }
    with monkeypatch.context() as past:
        now = time.time()
        past.setattr("itsdangerous.timed.time.time", lambda: now - MONTH_AND_A_DAY - 1)
        forged["expired"] = signed(ANA)
    old_payload, _, old_signature = forged["expired"].rsplit(".", 2)
    forged["renewed"] = f"{old_payload}.{at}.{old_signature}"
    assert [name for name, cookie in forged.items() if passes(visitor(cookie), ("/",))] == []


def test_an_account_that_is_not_allowed_reaches_the_logout_only(required: Configure) -> None:
    required(f"{WHOLE}[tasklens]\nallowed_emails = ['ann@example.org']")
    assert not passes(visitor(signed({**ANA, "email": "mallory@example.com"})))
    assert passes(visitor(signed({**ANA, "email": "ann@example.org"})))


@pytest.mark.parametrize("name", UNSAFE)
def test_a_file_that_is_not_whole_opens_nothing(configure: Configure, name: str) -> None:
    """Streamlit takes a file that it cannot read for none, which would open the dashboard to everybody."""
    configure(UNSAFE[name])
    assert not passes(visitor())
    assert not passes(visitor(signed(ANA)))


@pytest.mark.parametrize("name", UNSAFE)
def test_a_login_that_is_not_whole_is_an_error_and_counts_as_one(configure: Configure, name: str) -> None:
    configure(UNSAFE[name])
    with pytest.raises(UserError) as raised:
        login_settings()
    assert SECRET not in str(raised.value)
    assert is_login_configured()


def test_settings_of_the_login(configure: Configure) -> None:
    assert login_settings() is None
    configure(WHOLE + "[tasklens]\nreviewer_claim = 'email'\nallowed_emails = ['@example.org']")
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
