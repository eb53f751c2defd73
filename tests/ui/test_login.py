"""Who decides, where the server is shared and asks for a login."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from core.workspace.workspace import Workspace
from tests.secrets_file import WHOLE, Configure, secrets_file
from tests.ui.conftest import Open


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Configure]:
    with secrets_file(tmp_path) as write:
        yield write


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
    configure(WHOLE.replace('callback"', "callback"))
    shown = show(page)
    assert len(shown.error) == 1
    assert not [*shown.button, *shown.text_input, *shown.selectbox]


@pytest.mark.parametrize("page", ["overview", "load"])
def test_an_account_that_is_not_allowed_can_only_log_out(
    show: Open, empty: Workspace, configure: Configure, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    configure(f"{WHOLE}[tasklens]\nallowed_emails = ['ann@example.org']")
    monkeypatch.setattr(st, "user", {"is_logged_in": True, "name": "Ann", "email": "mallory@example.com"})
    shown = show(page)
    assert len(shown.error) == 1
    assert [button.label for button in shown.button] == ["Log out"]
    assert not [*shown.text_input, *shown.selectbox]
