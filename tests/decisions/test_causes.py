"""The cause of a decision: what old decisions without one count as, and what it says in words."""

from __future__ import annotations

import pytest

from core.decisions.causes import CAUSE_WORDS, CAUSES, implied_cause, named_cause
from core.decisions.records import Decision, Item, decision_text

IMAGE, TASK = Item("image", image_id="a"), Item("task", "t")


@pytest.mark.parametrize(
    ("reason", "source", "cause"),
    [
        ("", "", "label-error"),
        ("blurred", "queue-0f3a", "label-error"),
        ("", "rank-0f3a", "harmful"),
        ("", "whatif-0f3a", "harmful"),
        ("", "duplicates-0f3a", "duplicate"),
        ("most harmful", "rank-0f3a", "harmful"),
        ("among the 20 most harmful images", "snapshot before lunch", "harmful"),
        ("most helpful, occurrences: query only", "snapshot a", "harmful"),
        ("highest loss, occurrences: all", "rank-0f3a", "label-error"),
        ("estimated to harm task t3/image\nwith a line break most", "", "harmful"),
        ("a duplicate, reviewed on the Images page", "", "duplicate"),
        ("its duplicate is in a held-out task", "", "duplicate"),
        ("cleanlab: label issue, quality 0.1", "cleanlab:issues.csv", "label-error"),
        (" Harmful to the target", "", "harmful"),
        ("other", "rank-0f3a", "other"),
    ],
)
def test_a_decision_without_a_cause_gets_it_from_its_reason_or_source(reason: str, source: str, cause: str) -> None:
    for verdict in ("remove", "keep", "unsure"):
        assert Decision(IMAGE, verdict, reason=reason, source=source).cause == cause  # type: ignore[arg-type]
    assert Decision(IMAGE, "relabel", 3, reason, source=source).cause == "label-error"
    assert Decision(IMAGE, "clear", reason=reason, source=source).cause == ""


def test_a_task_is_no_label_error_unless_that_is_said() -> None:
    assert implied_cause("task", "", "") == "other"
    assert implied_cause("task", "", "rank-1") == "harmful"
    assert Decision(TASK, "remove", cause="label-error").cause == "label-error"


def test_a_stated_cause_takes_precedence() -> None:
    assert Decision(IMAGE, "remove", None, "most harmful", source="rank-1", cause="label-error").cause == "label-error"


def test_causes_are_named_by_value_and_in_words() -> None:
    assert (
        [named_cause(cause) for cause in CAUSES] == [named_cause(CAUSE_WORDS[cause]) for cause in CAUSES] == [*CAUSES]
    )
    assert named_cause("") is named_cause("looks like a duplicate") is None


def test_words_tell_removals_by_cause() -> None:
    removals = {decision_text(Decision(IMAGE, "remove", cause=cause), ()) for cause in CAUSES}
    assert len(removals) == len(CAUSES)
    assert all(CAUSE_WORDS[cause] in " ".join(removals) for cause in CAUSES)
    assert decision_text(Decision(IMAGE, "keep"), ()) == "keep"
    assert CAUSE_WORDS["duplicate"] in decision_text(Decision(IMAGE, "keep", cause="duplicate"), ())
