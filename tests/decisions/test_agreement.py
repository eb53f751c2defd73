"""Agreement of two reviewers, against figures worked out by hand and a plain bootstrap."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from core.decisions.agreement import agreement, pairwise_agreement
from core.decisions.causes import Cause
from core.decisions.log import Decision, DecisionLog, Item
from core.runtime.errors import UserError


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(tmp_path / "decisions.sqlite")


def decide(log: DecisionLog, reviewer: str, words: list[str]) -> None:
    """Append one decision per image: keep, remove, unsure, clear or a class number."""
    log.append(
        [
            Decision(
                Item("image", image_id=f"{number}"),
                "relabel" if word.isdecimal() else word,  # type: ignore[arg-type]
                int(word) if word.isdecimal() else None,
                reviewer=reviewer,
            )
            for number, word in enumerate(words)
        ]
    )


def test_cohens_example_with_two_categories(log: DecisionLog) -> None:
    # 20 times both keep, 15 both remove, 5 and 10 they differ: observed 0.7, by chance 0.5.
    decide(log, "Ann", ["keep"] * 25 + ["remove"] * 25)
    decide(log, "Bob", ["keep"] * 20 + ["remove"] * 5 + ["keep"] * 10 + ["remove"] * 15)
    found = agreement(log, "Ann", "Bob")
    assert (found.items, found.equal, len(found.differing)) == (50, 0.7, 15)
    assert found.kappa == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert all((a.reviewer, b.reviewer) == ("Ann", "Bob") for a, b in found.differing)
    other = agreement(log, "Bob", "Ann")
    assert (other.kappa, other.equal) == (pytest.approx(found.kappa), found.equal)


def test_the_interval_matches_a_plain_bootstrap(log: DecisionLog) -> None:
    rng = np.random.default_rng(1)
    words = np.array(["keep", "remove", "3", "4"])
    first = rng.choice(words, 200)
    second = np.where(rng.random(200) < 0.6, first, rng.choice(words, 200))
    decide(log, "Ann", first.tolist())
    decide(log, "Bob", second.tolist())
    found = agreement(log, "Ann", "Bob")
    assert found.kappa == pytest.approx(cohen_kappa_score(first, second))
    drawn = (rng.integers(0, 200, 200) for _ in range(500))
    low, high = np.quantile([cohen_kappa_score(first[rows], second[rows]) for rows in drawn], [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)


def test_the_interval_contains_kappa_if_one_removes_far_more_than_the_other(log: DecisionLog) -> None:
    decide(log, "Ann", ["keep"] * 90 + ["remove"] * 10)
    decide(log, "Bob", ["keep"] * 30 + ["remove"] * 70)
    found = agreement(log, "Ann", "Bob")
    assert found.low < found.kappa < found.high


def test_only_final_decisions_of_both_count_and_labels_matter(log: DecisionLog) -> None:
    decide(log, "Ann", ["1", "1", "keep", "unsure", "remove", "keep", "keep"])
    decide(log, "Bob", ["1", "2", "keep", "keep", "unsure", "clear"])
    found = agreement(log, "Ann", "Bob")
    assert (found.items, found.equal) == (3, pytest.approx(2 / 3))
    ((a, b),) = found.differing
    assert (a.label, b.label) == (1, 2)


def test_only_decisions_for_the_same_cause_are_compared(log: DecisionLog) -> None:
    images = [Item("image", image_id=f"{number}") for number in range(4)]
    decide(log, "Ann", ["keep", "remove", "remove", "keep"])
    causes: list[Cause] = ["harmful", "duplicate", "label-error", "label-error"]
    log.append([Decision(i, "remove", cause=cause, reviewer="Bob") for i, cause in zip(images, causes, strict=True)])
    found = agreement(log, "Ann", "Bob")
    assert (found.items, [a.item for a, _ in found.differing]) == (2, images[3:])
    (row,) = pairwise_agreement(log, ["Ann", "Bob"])
    assert row["items"] == 2
    log.append([Decision(i, "remove", cause="other", reviewer="Bob") for i in images])
    assert pairwise_agreement(log, ["Ann", "Bob"]) == []
    with pytest.raises(UserError):
        agreement(log, "Ann", "Bob")


def test_one_category_for_all_has_no_kappa(log: DecisionLog) -> None:
    decide(log, "Ann", ["keep"] * 3)
    decide(log, "Bob", ["keep"] * 4)
    found = agreement(log, "Ann", "Bob")
    assert (found.items, found.equal) == (3, 1)
    assert all(math.isnan(value) for value in (found.kappa, found.low, found.high))


def test_reviewers_without_common_items_are_refused(log: DecisionLog) -> None:
    decide(log, "Ann", ["keep"])
    with pytest.raises(UserError, match=r"“Ann” .*“Bob”"):
        agreement(log, "Ann", "Bob")
    with pytest.raises(UserError, match="“Ann”"):
        agreement(log, "Ann", "Ann")
