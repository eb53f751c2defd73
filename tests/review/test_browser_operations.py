"""Operations sent by the browser are translated and written to the decision log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.decisions.log import DecisionLog, Item
from core.review.browser_operations import (
    SUGGESTION_ACCEPTED,
    OperationAck,
    decode_positions,
    encode_positions,
    submit,
)
from core.review.review_queue import Queue
from core.runtime.errors import UserError
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
    ],
)
def test_invalid_operations_are_reported_and_the_rest_is_applied(log: DecisionLog, bad: dict[str, Any]) -> None:
    acks = send(log, bad, 7, {"act": "undo"}, decide("2", (0, "keep", None)))
    assert [(ack.token, bool(ack.error)) for ack in acks] == [("1", True), ("2", False)]
    assert acks[0].error
    assert list(verdicts(log)) == ["image0"]


def test_positions_are_encoded_compactly_and_decoded() -> None:
    rng = np.random.default_rng(0)
    some = np.flatnonzero(rng.random(10_000) < 0.5)
    assert np.array_equal(decode_positions(encode_positions(some, 10_000)), some)
    assert len(encode_positions(np.arange(10_000), 10_000)) < 100
    assert len(encode_positions(some, 10_000)) < 2_000
    with pytest.raises(UserError):
        decode_positions("999999999999.eJw=")
