"""Who decides, where the server is shared and asks for a login."""

from __future__ import annotations

import pytest
import streamlit as st

from core.workspace.workspace import Workspace
from tests.ui.conftest import Open


def test_without_a_login_the_name_is_free(show: Open, empty: Workspace) -> None:
    name = show("load").text_input(key="reviewer")
    assert (name.value, name.disabled) == ("me", False)


def test_a_login_gives_the_name(show: Open, empty: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "user", {"is_logged_in": True, "name": "Ana Example", "email": "ana@example.com"})
    name = show("load").text_input(key="reviewer")
    assert (name.value, name.disabled) == ("Ana Example", True)


def test_nobody_sees_anything_before_the_login(show: Open, empty: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "user", {"is_logged_in": False})
    page = show("overview")
    assert [button.label for button in page.button] == ["Log in"]
    assert not page.text_input
    assert not page.selectbox
