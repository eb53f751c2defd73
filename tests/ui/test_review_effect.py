"""The estimated effect of a decision: worked out beside the page, for the item asked for last."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from core.tasks.changes import Changes
from core.ui.review import background_lines as review_effect
from tests.review.test_filters import queue


def test_what_is_estimated() -> None:
    assert review_effect.choices(queue(), 0) == [("Removed", Changes(images=frozenset({"image0"})))]
    assert review_effect.choices(queue(), 1) == [
        ("Removed", Changes(images=frozenset({"image1"}))),
        ("Relabelled to a", Changes(relabelled_images=frozenset({("image1", "a")}))),
    ]
    assert review_effect.choices(queue("instance"), 1) == [
        ("Removed", Changes(instances=frozenset({("t1", "support", "image1")}))),
        ("Relabelled to a", Changes(relabelled_instances=frozenset({("t1", "support", "image1", "a")}))),
    ]


def test_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    go, begun, done = threading.Event(), threading.Event(), []

    def slow(estimator: Any, what: str, changes: Changes) -> str:
        begun.set()
        go.wait(60)
        done.append(changes)
        return what

    context: Any = SimpleNamespace(workspace=None)
    monkeypatch.setattr(review_effect, "find_preparation", lambda *_: SimpleNamespace(folder="whatif-test"))
    monkeypatch.setattr(review_effect, "live_estimator", lambda _: object())
    monkeypatch.setattr(review_effect, "line", slow)
    for position in (0, 3, 6):  # the reviewer moves on: of those that wait, only the last is worked out
        assert review_effect.effect_lines(context, queue(), position) is None
        assert begun.wait(60)  # the first is being worked out, so the others wait
    go.set()
    end = time.monotonic() + 60
    while (lines := review_effect.effect_lines(context, queue(), 6)) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert lines == ["Removed"]
    assert len(done) == 2


def test_nothing_is_said_where_nothing_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_effect, "find_preparation", lambda *_: None)
    context: Any = SimpleNamespace(workspace=None)
    assert review_effect.effect_lines(context, queue(), 0) == []
