"""Named sets of changes on the disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.runtime.errors import UserError
from core.tasks.changes import Changes
from core.workspace.whatif_sets import Sets

ONE = Changes(frozenset({"t0"}), relabelled_images=frozenset({("i", "x")}))


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    return Sets(tmp_path / "sets")


def test_a_saved_set_is_read_back(sets: Sets) -> None:
    made = sets.save("first (2)", ONE, who="me", note="because")
    assert sets.get("first (2)") == made
    assert (made.changes, made.who, made.note) == (ONE, "me", "because")
    assert sets.names() == ["first (2)"]


def test_a_name_is_not_reused_for_other_changes(sets: Sets) -> None:
    made = sets.save("first", ONE, who="me")
    assert sets.save("first", ONE, who="you") == made
    with pytest.raises(UserError, match="'first'"):
        sets.save("first", Changes(frozenset({"t1"})), who="me")
    sets.delete("first")
    assert sets.names() == []
    sets.save("first", Changes(frozenset({"t1"})), who="me")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", " a", "a ", "-x", "<b>", "x" * 61, "a\nb"])
def test_invalid_names_are_refused(sets: Sets, name: str) -> None:
    with pytest.raises(UserError, match=re.escape(repr(name))):
        sets.save(name, ONE, who="me")
    for action in (sets.get, sets.delete):
        with pytest.raises(UserError, match=re.escape(repr(name))):
            action(name)


def test_a_set_needs_changes(sets: Sets) -> None:
    with pytest.raises(UserError, match="changes"):
        sets.save("first", Changes(), who="me")


def test_a_set_needs_a_reviewer(sets: Sets) -> None:
    with pytest.raises(UserError, match="reviewer"):
        sets.save("first", ONE, who=" ")
    assert sets.names() == []


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9}', '{"format": 1, "changes": {"tasks": 1}}'])
def test_a_damaged_file_is_refused(sets: Sets, text: str) -> None:
    sets.folder.mkdir()
    (sets.folder / "first.json").write_text(text)
    with pytest.raises(UserError):
        sets.get("first")
