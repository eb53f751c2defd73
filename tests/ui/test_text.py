"""Names from data as they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ui.shell.text import shorten


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
