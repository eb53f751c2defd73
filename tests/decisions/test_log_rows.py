"""Invalid rows of the log, as another program or a damaged disk leaves them: named, left out, and in nobody's way."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.decisions.causes import CAUSES
from core.decisions.log import Decision, DecisionLog, Item, LogFileError, Operation
from core.decisions.valid_rows import FULL_FROM, LARGEST_ID, unreadable_text
from core.runtime.errors import UserError
from tests.decisions.test_log import MEMORY, state
from tests.properties import examples

AT = "2026-01-01T00:00:00.000+00:00"
ENTRY = (2, "image", "", "", "cat", "remove", None, "", "Ann", "", "label-error")
"""Values of a valid entry of the group 2 after its number: group_id, kind, ... as in the table."""
COLUMNS = ("group_id", "kind", "task_id", "role", "image_id", "verdict", "label", "reason", "reviewer", "source")
CAT, DOG = (Item("image", image_id=name) for name in ("cat", "dog"))


def insert(path: Path, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write rows past all checks."""
    with closing(sqlite3.connect(path)) as connection, connection:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    log = DecisionLog(tmp_path / "decisions.sqlite")
    log.append([Decision(CAT, "keep", reviewer="Ann"), Decision(DOG, "keep", reviewer="Ann")])
    return log


def named(log: DecisionLog) -> list[tuple[str, int, str]]:
    return [tuple(row) for row in log.unreadable_rows()]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("group_id", 77),
        ("group_id", "two"),
        ("kind", "folder"),
        ("kind", b"image"),
        ("task_id", "t1"),
        ("task_id", b""),
        ("role", "support"),
        ("image_id", ""),
        ("image_id", b"\xff\xfe"),
        ("verdict", "eat"),
        ("verdict", b"remove"),
        ("label", "cat"),
        ("label", 3),
        ("label", 2.5),
        ("reason", b"\x00"),
        ("reviewer", b"Ann"),
        ("source", b"x"),
    ],
)
def test_an_invalid_entry_is_named_and_hides_nothing(log: DecisionLog, column: str, value: Any) -> None:
    before = log.current()
    insert(log.path, "groups", [(2, 2, None, AT, "Ann", None)])
    bad = [value if name == column else valid for name, valid in zip(COLUMNS, ENTRY, strict=False)]
    insert(log.path, "entries", [(3, *bad, "label-error"), (4, *ENTRY[:4], "new", *ENTRY[5:])])
    for opened in (log, DecisionLog(log.path)):
        assert [row[:2] for row in named(opened)] == [("entries", 3)]
        assert opened.current() == before | {entry.item: entry for entry in opened.history() if entry.seq == 4}
        assert len(opened.history()) == 3
        assert unreadable_text(opened.unreadable_rows())
    assert len(log.undo("Ann").reversed_entries) == 1
    assert log.current() == before
    log.append([Decision(CAT, "remove", reviewer="Bob")])
    assert DecisionLog(log.path).current()[CAT].verdict == "remove"
    assert [row[:2] for row in named(log)] == [("entries", 3)]


@pytest.mark.parametrize(
    ("group", "column"),
    [
        ((2, 2, None, "yesterday", "Ann", None), "at"),
        ((2, 2, None, "now", "Ann", None), "at"),
        ((2, 2, None, AT, b"Ann", None), "reviewer"),
        ((2, 9, None, AT, "Ann", None), "root"),
        ((2, "a", None, AT, "Ann", None), "root"),
        ((2, 2, "a", AT, "Ann", None), "undoes"),
        ((2, 2, None, AT, "Ann", "a"), "saw"),
        ((-5, -5, None, AT, "Ann", None), "id"),
        ((2**63 - 1, 2**63 - 1, None, AT, "Ann", None), "id"),
    ],
)
def test_an_invalid_group_is_left_out_with_its_entries(log: DecisionLog, group: tuple[Any, ...], column: str) -> None:
    before = state(log)
    insert(log.path, "groups", [group])
    insert(log.path, "entries", [(3, group[0], *ENTRY[1:])])
    for opened in (log, DecisionLog(log.path)):
        assert ("groups", group[0], column) in named(opened)
        assert state(opened) == before
    number = log.append([Decision(DOG, "remove", reviewer="Bob")])
    assert 2 <= number < 10
    assert len(log.undo("Bob").reversed_entries) == 1
    assert state(log) == before


def test_undos_that_undo_each_other_are_left_out(log: DecisionLog) -> None:
    insert(log.path, "groups", [(2, 3, 3, AT, "Ann", None), (3, 2, 2, AT, "Ann", None), (4, 2, 2, AT, "Ann", None)])
    for opened in (log, DecisionLog(log.path)):
        assert [row[:2] for row in named(opened)] == [("groups", 2), ("groups", 3), ("groups", 4)]
        assert len(opened.current()) == 2
    assert len(log.undo("Ann").reversed_entries) == 2


def test_invalid_comments_and_snapshots_hide_no_others(log: DecisionLog) -> None:
    comment, snapshot = log.comment(CAT, "Ann", "hm"), log.snapshot("a", "Ann")
    insert(log.path, "comments", [(2, "image", "", "", "cat", "Ann", b"\x00", AT), (3, "x", "", "", "", "A", "t", AT)])
    insert(log.path, "snapshots", [(2, b"b", "Ann", "", AT, 2, 1), (3, "c", "Ann", "", AT, "two", 1)])
    for opened in (log, DecisionLog(log.path)):
        assert (opened.comments(), opened.snapshots()) == ([comment], [snapshot])
        assert [row[:2] for row in named(opened)] == [
            *(("comments", n) for n in (2, 3)),
            ("snapshots", 2),
            ("snapshots", 3),
        ]
    with pytest.raises(UserError):
        log.snapshot("c", "Ann")  # its name is taken
    assert log.comment(CAT, "Ann", "more").id == 4


def test_damaged_text_is_shown_with_replacement_characters(log: DecisionLog) -> None:
    with closing(sqlite3.connect(log.path)) as connection, connection:
        connection.execute(
            "INSERT INTO comments VALUES (1, 'image', '', '', 'cat', 'Ann', CAST(x'41ff42' AS TEXT), ?)", (AT,)
        )
    assert [comment.text for comment in log.comments()] == ["A\ufffdB"]


def test_a_row_that_changes_while_the_log_is_open_is_left_out_from_the_next_call_on(log: DecisionLog) -> None:
    assert len(log.history()) == 2
    with closing(sqlite3.connect(log.path)) as connection, connection:
        connection.execute("DROP TRIGGER entries_UPDATE")
        connection.execute("UPDATE entries SET verdict = 'eat' WHERE seq = 1")
    with pytest.raises(UserError):
        log.history()
    assert [entry.seq for entry in log.history()] == [2]
    assert named(log) == [("entries", 1, "verdict")]


values = st.one_of(
    st.none(),
    st.integers(-3, 4),
    st.floats(allow_nan=False),
    st.binary(max_size=3),
    st.sampled_from(
        ["", "image", "task", "instance", "support", "cat", "t", "Ann", "keep", "remove", "relabel", "clear"]
    ),
    st.sampled_from([*CAUSES, "unsure"]),
)


@given(rows=st.lists(st.tuples(*[values] * len(ENTRY)), min_size=1, max_size=12))
@examples(60)
def test_what_is_valid_in_sql_is_valid_as_a_decision(rows: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        log = DecisionLog(Path(folder) / "log.sqlite")
        insert(log.path, "groups", [(2, 2, None, AT, "Ann", None)])
        stored = []
        with closing(sqlite3.connect(log.path)) as connection, connection:
            marks = ", ".join("?" * len(ENTRY))
            for row in rows:
                try:
                    connection.execute(f"INSERT INTO entries VALUES (NULL, {marks})", row)
                except sqlite3.IntegrityError:  # NULL where the table allows none
                    continue
            stored = connection.execute("SELECT * FROM entries ORDER BY seq").fetchall()
        invalid = {row.number for row in log.unreadable_rows()}
        valid = []
        for seq, group, *item, verdict, label, reason, reviewer, source, cause in stored:
            texts = (*item, verdict, reason, reviewer, source, cause)
            try:
                if (
                    group != 2
                    or not all(isinstance(text, str) for text in texts)
                    or isinstance(label, float | str | bytes)
                ):
                    raise UserError("not of the types of an entry")
                Decision(Item(*item), verdict, label, reason, reviewer, source, cause)
            except UserError:
                assert seq in invalid
            else:
                valid.append(seq)
        assert [entry.seq for entry in log.history()] == valid
        assert invalid.isdisjoint(valid)
        assert len(state(log)) <= len(valid)


@pytest.mark.parametrize("number", [LARGEST_ID, LARGEST_ID - 1, FULL_FROM])
@pytest.mark.parametrize("table", ["groups", "entries"])
def test_nothing_is_acknowledged_that_would_get_an_invalid_number(log: DecisionLog, table: str, number: int) -> None:
    before = log.current()
    if table == "groups":
        insert(log.path, "groups", [(number, number, None, AT, "Bob", None)])
    else:
        insert(log.path, "entries", [(number, 1, *ENTRY[1:4], "bird", *ENTRY[5:])])
    opened = DecisionLog(log.path)
    for write in (
        lambda: opened.append([Decision(CAT, "remove", reviewer="Ann", cause="label-error")]),
        lambda: opened.undo("Ann"),
    ):
        with pytest.raises(LogFileError):
            write()
    assert {item: entry for item, entry in opened.current().items() if item in before} == before


@pytest.mark.parametrize("number", [LARGEST_ID, LARGEST_ID - 1, FULL_FROM])
def test_no_comment_or_snapshot_gets_an_invalid_number(log: DecisionLog, number: int) -> None:
    insert(log.path, "comments", [(number, *ENTRY[1:5], "Bob", "text", AT)])
    insert(log.path, "snapshots", [(number, "last", "Bob", "", AT, 1, 1)])
    with pytest.raises(LogFileError):
        log.comment(CAT, "Ann", "text")
    with pytest.raises(LogFileError):
        log.snapshot("next", "Ann")
    assert log.append([Decision(CAT, "unsure", reviewer="Ann")])


def test_the_token_of_another_reviewer_acknowledges_nothing(log: DecisionLog) -> None:
    decide = {
        who: Operation("decide", who, "token", (Decision(CAT, "unsure", reviewer=who),)) for who in ("Ann", "Bob")
    }
    assert log.submit([decide["Ann"]]) == log.submit([decide["Ann"]])
    log.comment(CAT, "Ann", "text", "token")
    log.snapshot("first", "Ann", token="token")
    for write in (
        lambda: log.submit([decide["Bob"]]),
        lambda: log.undo("Bob") and log.submit([Operation("undo", "Bob", "token")]),
        lambda: log.restore("first", "Bob", "token"),
        lambda: log.comment(CAT, "Bob", "text", "token"),
        lambda: log.snapshot("second", "Bob", token="token"),
    ):
        with pytest.raises(UserError):
            write()
