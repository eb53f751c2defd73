"""Which items of a queue are decided, and which labels were found wrong, found right, or are open."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.decisions.causes import CAUSES, OptionalCause
from core.decisions.log import Decision, DecisionLog, Item, Verdict
from core.decisions.queue_decisions import QueueDecisions, QueuePositions

IMAGE_A, IMAGE_B = Item("image", image_id="a"), Item("image", image_id="b")
ROWS = [
    Item("instance", "t0", "support", "a"),
    Item("instance", "t1", "query", "a"),
    Item("instance", "t1", "support", "b"),
    Item("instance", "t2", "query", "c"),
]


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(tmp_path / "decisions.sqlite")


def decide(log: DecisionLog, item: Item, verdict: Verdict, reviewer: str = "ann", *, cause: OptionalCause = "") -> None:
    log.append([Decision(item, verdict, 1 if verdict == "relabel" else None, reviewer=reviewer, cause=cause)])


def of_rows(log: DecisionLog) -> QueueDecisions:
    return QueuePositions(ROWS).decisions(log.current(), log.conflicts())


def test_final_verdicts_are_wrong_or_right_and_the_newest_counts(log: DecisionLog) -> None:
    for row, verdict in zip(ROWS, ("keep", "remove", "relabel", "unsure"), strict=True):
        decide(log, row, verdict)  # type: ignore[arg-type]
    assert of_rows(log).is_wrong == {0: False, 1: True, 2: True}
    assert (of_rows(log).errors_found, of_rows(log).decided) == (2, 3)
    decide(log, ROWS[1], "keep")
    decide(log, ROWS[2], "clear")
    assert of_rows(log).is_wrong == {0: False, 1: False}


def test_a_decision_on_an_image_counts_for_its_rows_without_a_final_decision(log: DecisionLog) -> None:
    decide(log, IMAGE_A, "remove")
    assert of_rows(log).is_wrong == {0: True, 1: True}
    decide(log, ROWS[0], "keep")
    decide(log, ROWS[1], "unsure")
    assert of_rows(log).is_wrong == {0: False, 1: True}
    assert of_rows(log).entries[1].item == IMAGE_A


def test_an_older_decision_on_a_row_takes_precedence_over_a_newer_one_on_its_image(log: DecisionLog) -> None:
    decide(log, ROWS[0], "keep")
    decide(log, IMAGE_A, "remove")
    assert of_rows(log).is_wrong == {0: False, 1: True}


def test_decisions_on_rows_and_tasks_do_not_apply_to_images(log: DecisionLog) -> None:
    decide(log, ROWS[0], "remove")
    decide(log, Item("task", "t1"), "remove")
    positions = QueuePositions([IMAGE_A, IMAGE_B])
    assert positions.decisions(log.current(), log.conflicts()).is_wrong == {}
    decide(log, IMAGE_B, "remove")
    assert positions.decisions(log.current(), log.conflicts()).is_wrong == {1: True}
    assert of_rows(log).is_wrong == {0: True, 2: True}, "the removed task says nothing about labels"


def test_only_decisions_on_labels_say_that_labels_are_wrong_or_right(log: DecisionLog) -> None:
    for row, verdict, cause in zip(ROWS, ("remove", "keep", "remove", "remove"), CAUSES, strict=True):
        decide(log, row, verdict, cause=cause)  # type: ignore[arg-type]
    found = of_rows(log)
    assert (found.is_wrong, found.errors_found, found.decided) == ({0: True}, 1, 4)
    assert [entry.verdict for entry in found.entries.values()] == ["remove", "keep", "remove", "remove"]
    decide(log, ROWS[3], "remove", cause="label-error")
    decide(log, ROWS[0], "remove", cause="duplicate")
    assert of_rows(log).is_wrong == {3: True}, "the newest decision says why"


def test_a_row_removed_for_another_cause_does_not_hide_the_label_of_its_image(log: DecisionLog) -> None:
    decide(log, IMAGE_A, "remove")
    decide(log, ROWS[0], "remove", cause="harmful")
    assert of_rows(log).is_wrong == {0: True, 1: True}
    assert of_rows(log).entries[0].item == ROWS[0]
    decide(log, IMAGE_A, "keep", "bob")
    found = of_rows(log)
    assert (found.is_wrong, set(found.conflicts)) == ({}, {1}), "the row has a final decision, but not on its label"
    assert found.decided == 1


def test_a_conflict_is_open_until_it_is_resolved(log: DecisionLog) -> None:
    decide(log, ROWS[2], "keep", "ann")
    decide(log, ROWS[2], "remove", "bob")
    assert (of_rows(log).is_wrong, of_rows(log).decided) == ({}, 0)
    assert set(of_rows(log).conflicts) == {2}
    decide(log, IMAGE_B, "remove")
    assert of_rows(log).is_wrong == {}, "a decision on the image does not resolve the conflict on the row"
    decide(log, ROWS[2], "remove", "ann")
    assert of_rows(log).is_wrong == {2: True}


def test_a_conflict_on_an_image_leaves_rows_open_unless_they_have_a_final_decision(log: DecisionLog) -> None:
    decide(log, IMAGE_A, "keep", "ann")
    decide(log, IMAGE_A, "remove", "bob")
    decide(log, ROWS[0], "relabel")
    decide(log, ROWS[1], "unsure")
    assert of_rows(log).is_wrong == {0: True}
    assert set(of_rows(log).conflicts) == {1}


def test_decisions_of_one_reviewer(log: DecisionLog) -> None:
    decide(log, ROWS[0], "keep", "ann")
    decide(log, ROWS[0], "remove", "bob")
    positions = QueuePositions(ROWS)
    assert positions.decisions(log.decisions_of("ann"), {}).is_wrong == {0: False}
    assert positions.decisions(log.decisions_of("bob"), {}).is_wrong == {0: True}
