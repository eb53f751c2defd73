"""Names from data as they are shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ui.shell.text import SEPARATOR, plain, shorten


@pytest.mark.parametrize(
    ("name", "most", "shown"),
    [
        ("7", 9, "7"),
        ("exactly 9", 9, "exactly 9"),
        ("Grantha/character21", 16, "Grantha/…acter21"),
        ("Grantha/character21", 9, "Gran…er21"),
    ],
)
def test_long_names_keep_both_ends(name: str, most: int, shown: str) -> None:
    assert shorten(name, most) == shown


@given(name=st.text(), most=st.integers(3, 40))
def test_a_shortened_name_fits_and_a_short_one_is_untouched(name: str, most: int) -> None:
    shown = shorten(name, most)
    assert len(shown) <= most
    assert shown == name or len(name) > most


@pytest.mark.parametrize(
    "name",
    [
        "www.evil.example",
        "https://evil.example/x",
        "ann@evil.example",
        "mailto:ann@evil.example",
        ":smile:",
        ":material/home:",
        "a -> b",
        "**bold** [x](y) <b>",
    ],
)
def test_nothing_in_a_name_is_whole_where_streamlit_looks_for_markup(name: str) -> None:
    """What a browser makes of it is tested in tests/e2e/test_guard.py."""
    assert plain(name).replace(SEPARATOR, "").replace("\\", "") == name
    assert plain(name) != name


@given(name=st.text(alphabet=st.characters(exclude_categories=["C", "Z"])))
def test_only_separators_and_escapes_are_added(name: str) -> None:
    shown = plain(name).replace(SEPARATOR, "")
    assert re.sub(r"\\(.)", r"\1", shown) == name
