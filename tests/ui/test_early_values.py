"""Values that a browser made up, of widgets that a page reads before it draws them, and names of reviewers."""

from __future__ import annotations

from typing import Any

import pytest
import streamlit as st

from core.ui.shell.early_values import early_option, early_page
from core.ui.shell.guard import BUG_ICON
from core.workspace.workspace import Workspace
from tests.ui.conftest import Open

MADE_UP = (7, -1, "nonsense", 1e300, float("nan"), ["a", "list"], {}, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [*((value, ("one", 3 if value in (7, 1e300) else 1)) for value in MADE_UP), ("two", ("two", 1)), (2, ("one", 2))],
)
def test_only_values_that_a_widget_can_have_are_read(
    value: Any, expected: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st, "session_state", {"order": value, "page": value})
    assert (early_option("order", {"one": 1, "two": 2}, "one"), early_page("page", 3)) == expected


@pytest.mark.parametrize("name", ["\u200b", "\ufeff\u00ad"])
def test_a_reviewer_without_a_visible_name_is_refused_at_the_field(show: Open, full: Workspace, name: str) -> None:
    test = show("tasks")
    test.text_input(key="reviewer").set_value(name).run()
    assert [error.icon != BUG_ICON for error in test.error] == [True]
    assert not test.dataframe
    test.text_input(key="reviewer").set_value("ann").run()
    assert not test.error
    assert test.dataframe
