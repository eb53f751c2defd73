"""Operations sent by the browser are translated and written to the decision log."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.decisions.log import DecisionLog, Item, LogFileError, LogTransaction
from core.review.browser_operations import (
    SUGGESTION_ACCEPTED,
    OperationAck,
    decode_positions,
    encode_positions,
    submit,
)
from core.review.review_queue import Queue
from core.runtime.errors import TransientError, UserError
from tests.properties import examples
from tests.review.test_filters import N, queue, tasks

TASKS = tasks()


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(tmp_path / "decisions.sqlite")


def send(log: DecisionLog, *sent: Any, blind: bool = False) -> list[OperationAck]:
    def queue_of(run_id: str) -> Queue:
        if run_id != "queue-0":
            raise UserError("There is no such run.", "Look again.")
        return queue()

    return submit(log, sent, "Ana", blind, queue(), TASKS, queue_of)


def decide(token: str, *items: tuple[int, str, int | None], **more: Any) -> dict[str, Any]:
    rows = [["image", "", "", f"image{at}", verdict, label] for at, verdict, label in items]
    return {"token": token, "act": "decide", "verdict": "", "run": "queue-0", "items": rows, **more}


def comment(token: str, text: Any) -> dict[str, Any]:
    return {"token": token, "act": "comment", "text": text, "items": [["image", "", "", "image1"]]}


def verdicts(log: DecisionLog) -> dict[str, tuple[str, int | None]]:
    return {item.image_id: (entry.verdict, entry.label) for item, entry in log.current().items()}


def test_a_repeated_operation_is_applied_once(log: DecisionLog) -> None:
    first = decide("a-1", (0, "keep", None), (1, "relabel", 2))
    assert send(log, first) == [OperationAck("a-1", "decide")]
    assert send(log, first, decide("a-2", (3, "remove", None))) == [
        OperationAck("a-1", "decide"),
        OperationAck("a-2", "decide"),
    ]
    assert verdicts(log) == {"image0": ("keep", None), "image1": ("relabel", 2), "image3": ("remove", None)}
    assert len(log.history()) == 3
    assert {entry.source for entry in log.history()} == {"queue-0"}


def test_undo_and_redo_are_acknowledged_with_results(log: DecisionLog) -> None:
    send(log, decide("1", (0, "keep", None)), decide("2", (0, "remove", None), (1, "remove", None)))

    def reversal(token: str, act: str) -> tuple[str, str, int | None, int]:
        (ack,) = send(log, {"token": token, "act": act})
        assert ack.result is not None
        return ack.token, ack.act, ack.result.group, len(ack.result.reversed_entries)

    assert reversal("3", "undo") == ("3", "undo", 3, 2)
    assert verdicts(log) == {"image0": ("keep", None)}
    assert reversal("4", "redo") == ("4", "redo", 4, 2)
    assert reversal("5", "redo") == ("5", "redo", None, 0)


def test_a_decision_on_all_filtered_items(log: DecisionLog) -> None:
    packed = encode_positions(np.array([1, 4, 7]), N)
    op = {"token": "1", "act": "decide", "run": "queue-0", "set": packed}
    send(log, {**op, "verdict": "relabel", "label": 1})
    assert verdicts(log) == dict.fromkeys(("image1", "image4", "image7"), ("keep", None))  # their class already
    send(log, {**op, "token": "2", "verdict": "accept", "label": None})
    assert verdicts(log) == {"image1": ("relabel", 0), "image4": ("relabel", 0), "image7": ("keep", None)}
    assert log.current()[Item("image", image_id="image1")].reason == SUGGESTION_ACCEPTED
    send(log, {**op, "token": "3", "verdict": "clear", "label": None})
    assert verdicts(log) == {}


def test_the_cause_is_that_of_removals_alone(log: DecisionLog) -> None:
    send(log, decide("1", (0, "remove", None), (1, "keep", None), (2, "relabel", 2), cause="duplicate"))
    packed = encode_positions(np.array([4, 5]), N)
    send(log, {**decide("2", verdict="remove", cause="harmful", set=packed), "items": []})
    send(log, decide("3", (6, "remove", None)))  # left behind by a page of an earlier version
    causes = {item.image_id: entry.cause for item, entry in log.current().items()}
    of_others = dict.fromkeys(("image1", "image2", "image6"), "label-error")
    assert causes == {"image0": "duplicate", "image4": "harmful", "image5": "harmful", **of_others}
    send(log, decide("4", (0, "clear", None), cause="duplicate"))
    assert Item("image", image_id="image0") not in log.current()


def test_a_decision_with_others_on_screen_resolves_a_conflict(log: DecisionLog) -> None:
    submit(log, [decide("x", (0, "keep", None), saw=0)], "Ben", False, queue(), TASKS, lambda _: queue())
    send(log, decide("1", (0, "remove", None), saw=log.version()))
    assert not log.conflicts()
    send(log, decide("2", (0, "remove", None), saw=log.version()), blind=True)
    assert log.conflicts()


def test_comments(log: DecisionLog) -> None:
    message = {"token": "1", "act": "comment", "text": "half a seven", "items": [["image", "", "", "image0"]]}
    assert send(log, message) == send(log, message) == [OperationAck("1", "comment")]
    assert [(one.reviewer, one.text) for one in log.comments()] == [("Ana", "half a seven")]


@pytest.mark.parametrize(
    "bad",
    [
        {"token": "1", "act": "decide"},
        {"token": "1", "act": "burn"},
        {"token": "1", "act": "decide", "verdict": "keep", "run": "gone-0", "set": encode_positions(np.array([1]), N)},
        {"token": "1", "act": "decide", "verdict": "keep", "run": "queue-0", "set": "12.!!"},
        {
            "token": "1",
            "act": "decide",
            "verdict": "keep",
            "run": "queue-0",
            "set": encode_positions(np.array([N]), N + 1),
        },
        decide("1", (0, "eat", None)),
        decide("1", (0, "relabel", None)),
        decide("1", (0, "remove", None), cause=["dull"]),
        {**decide("1"), "items": [["image"]]},
        {**decide("1"), "items": "image"},
        {**decide("1"), "items": [["image", "", "", "image0", "keep", None, "more"]]},
        {**decide("1"), "items": [["image", "", "", 7, "keep", None]]},
        {**decide("1"), "items": {"image": 1}},
        decide("1"),
        decide("1", (99, "keep", None)),
        decide("1", (0, "relabel", 3)),
        decide("1", (0, "relabel", -1)),
        decide("1", (0, "relabel", 2**63)),
        decide("1", (0, "relabel", True)),  # type: ignore[arg-type]
        decide("1", (0, "relabel", 1.5)),  # type: ignore[arg-type]
        decide("1", (0, "relabel", "1")),  # type: ignore[arg-type]
        decide("1", (0, "keep", None), (1, "keep", 1)),
        decide("1", set="", verdict="keep"),
        {"token": "1", "act": ["decide"]},
        {"token": "1", "act": "undo again"},
        {"token": "1"},
        comment("1", "\ufeff"),
        comment("1", "x" * 10_001),
        comment("1", "\ud83d"),
        comment("1", 7),
        {"token": "1", "act": "comment", "text": "no item"},
        {"token": "1", "act": "comment", "text": "no item", "items": []},
        {"token": "1", "act": "comment", "text": "unknown", "items": [["image", "", "", "gone"]]},
    ],
)
def test_invalid_operations_are_reported_and_the_rest_is_applied(log: DecisionLog, bad: dict[str, Any]) -> None:
    send(log, decide("0", (5, "remove", None)))
    before = log.history()
    sent = [
        {"token": "2", "act": "undo"},
        bad,
        7,
        {"act": "undo"},
        comment("3", "after"),
        decide("4", (0, "keep", None)),
    ]
    for _ in range(2):
        acks = send(log, *sent)
        assert [(ack.token, bool(ack.error)) for ack in acks] == [("2", False), ("1", True), ("3", False), ("4", False)]
        assert not re.search("pydantic|Traceback|core[.]", acks[1].error)
        assert len(acks[1].error) < 400
        assert list(verdicts(log)) == ["image0"]
        assert len(log.history()) == len(before) + 2
        assert [one.text for one in log.comments()] == ["after"]


def test_a_rejected_operation_says_which_items_it_was_about(log: DecisionLog) -> None:
    two = decide("1", (0, "eat", None), (1, "eat", None))
    everything = {"token": "2", "act": "decide", "verdict": "keep", "run": "queue-0", "set": "12.!!"}
    assert [ack.item for ack in send(log, two, everything, comment("3", "\ufeff"))] == [
        "image image0 and 1 more",
        "a selection of the whole list",
        "image image1",
    ]


def test_comments_and_decisions_are_written_in_their_order_in_one_transaction(
    log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("apply", "comment"):
        usual = getattr(LogTransaction, name)

        def noted(one: LogTransaction, *more: Any, usual: Any = usual) -> Any:
            calls.append((id(one), more[-1] if len(more) > 1 else more[0].token))
            return usual(one, *more)

        monkeypatch.setattr(LogTransaction, name, noted)
    send(log, comment("1", "a"), decide("2", (0, "keep", None)), comment("3", "b"), {"token": "4", "act": "undo"})
    assert [token for _, token in calls] == ["1", "2", "3", "4"]
    assert len({one for one, _ in calls}) == 1


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
def test_errors_of_the_log_acknowledge_nothing(log: DecisionLog, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    sent = [decide("1", (0, "keep", None)), decide("bad", (0, "eat", None)), comment("2", "hm")]

    def fails(*_: Any) -> None:
        error = sqlite3.OperationalError("fails")
        error.sqlite_errorcode, error.sqlite_errorname = code, ""
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(LogTransaction, "comment", fails)
        with pytest.raises(LogFileError):
            send(log, *sent)
    assert (log.history(), log.comments()) == ([], [])
    assert [bool(ack.error) for ack in send(log, *sent)] == [False, True, False]


def test_a_queue_that_cannot_be_read_for_now_acknowledges_nothing(log: DecisionLog) -> None:
    def unreadable(_: str) -> Queue:
        raise TransientError("The disk does not answer.", "Try again.")

    op = {"token": "1", "act": "decide", "verdict": "keep", "run": "q", "set": encode_positions(np.array([1]), N)}
    with pytest.raises(TransientError):
        submit(log, [op], "Ana", False, queue(), TASKS, unreadable)


@pytest.mark.parametrize("name", ["", "\u200b", "x" * 201, "\ud800"])
def test_a_reviewer_without_a_proper_name_loses_nothing(log: DecisionLog, name: str) -> None:
    with pytest.raises(UserError):
        submit(log, [decide("1", (0, "keep", None))], name, False, queue(), TASKS, lambda _: queue())
    assert not log.history()


wild = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(st.characters(exclude_categories=()), max_size=4),
        st.sampled_from(
            ["image", "image1", "keep", "relabel", "accept", "decide", "undo", "comment", "queue-0", "\ufeff"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=7), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=8,
)
fields = st.sampled_from(["act", "verdict", "label", "cause", "run", "saw", "set", "items", "text", "token", "new"])


@given(changes=st.lists(st.tuples(st.integers(0, 3), fields, wild), min_size=1, max_size=6))
@examples(80)
def test_no_operation_keeps_others_from_being_written(changes: list[tuple[int, str, Any]]) -> None:
    spoilt = [
        decide("a", (1, "relabel", 2)),
        comment("b", "text"),
        {"token": "c", "act": "undo"},
        {"token": "d", "act": "decide", "verdict": "keep", "run": "queue-0", "set": encode_positions(np.array([1]), N)},
    ]
    for at, name, value in changes:
        spoilt[at][name] = value
    good = [decide("1", (9, "remove", None)), comment("2", "good"), decide("3", (10, "keep", None))]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        log = DecisionLog(Path(folder) / "log.sqlite")
        acks = {ack.token: ack for ack in send(log, good[0], spoilt[0], spoilt[1], good[1], spoilt[3], good[2])}
        named = [one["token"] for one in spoilt if isinstance(one["token"], str) and one["token"]]
        assert {"1", "2", "3"} <= acks.keys() <= {"1", "2", "3", *named}
        assert not any(acks[token].error for token in "123" if named.count(token) == 0)
        assert verdicts(log)["image10"] == ("keep", None)
        assert "good" in [one.text for one in log.comments()]
        again = send(log, good[0], spoilt[0], spoilt[1], good[1], spoilt[3], good[2])
        assert {ack.token: bool(ack.error) for ack in again} == {token: bool(ack.error) for token, ack in acks.items()}


def test_positions_are_encoded_compactly_and_decoded() -> None:
    rng = np.random.default_rng(0)
    some = np.flatnonzero(rng.random(10_000) < 0.5)
    assert np.array_equal(decode_positions(encode_positions(some, 10_000)), some)
    assert len(encode_positions(np.arange(10_000), 10_000)) < 100
    assert len(encode_positions(some, 10_000)) < 2_000
    with pytest.raises(UserError):
        decode_positions("999999999999.eJw=")
