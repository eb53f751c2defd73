"""The candidate that finds injected errors best is chosen, and simple ones where several do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.recommendation.choice import CopyScores, choose
from core.recommendation.scores import SCORES, STAGES
from core.review.calibration import COMBINATION

N = 400


def copies(level: str, protocols: tuple[str, ...], separation: dict[str, float]) -> list[CopyScores]:
    """Copies whose scores separate 40 errors by so many standard deviations, with independent noise."""
    made = []
    for number, protocol in enumerate(protocols):
        rng = np.random.default_rng([5, number])
        wrong = np.arange(N) < 40
        scores = {name: rng.normal(size=N) + separation.get(name, 0.0) * wrong for name in STAGES[level]}
        seconds = dict.fromkeys(STAGES[level].values(), 2.0)
        made.append(CopyScores(protocol, pd.DataFrame(scores), wrong, seconds))
    return made


def test_the_best_single_score_is_chosen() -> None:
    choice = choose("images", copies("images", ("image", "confusion"), {"loss": 5.0, "scoring_loss": 2.0, "harm": 0.2}))
    table = choice.table
    assert choice.candidate == "loss"
    assert choice.uses("loss")
    assert not choice.uses("harm")
    assert choice.auc > 0.99
    assert choice.evidence == "scoring_loss"
    assert set(table.loc[table["chosen"], "candidate"]) == {"loss"}
    assert set(table["candidate"]) == {*STAGES["images"], COMBINATION}
    assert set(table["protocol"]) == {"image", "confusion"}
    found = table.set_index(["protocol", "candidate"])
    assert found.loc[("image", "loss"), "found"] > 0.98
    assert found.loc[("image", "harm"), "found"] < 0.6
    assert (table["first"] == 0.2).all()
    assert (table["injected"] == 40).all()
    assert found.loc[("image", "loss"), "seconds"] == 2
    assert found.loc[("image", COMBINATION), "seconds"] == 2 * len(set(STAGES["images"].values()))


def test_of_equal_scores_the_first_is_chosen() -> None:
    choice = choose("tasks", copies("tasks", ("easy", "hard"), dict.fromkeys(STAGES["tasks"], 12.0)))
    assert choice.candidate == SCORES[0]
    assert choice.table.loc[choice.table["protocol"] == "easy", "first"].eq(0.4).all()


def test_the_combination_of_independent_scores_is_chosen() -> None:
    separation = {"scoring_loss": 1.6, "loss": 1.6, "self_influence": 1.6, "harm": -1.0}
    choice = choose("instances", copies("instances", ("easy", "hard", "image"), separation))
    assert choice.candidate == COMBINATION
    assert set(choice.weights) == {"scoring_loss", "loss", "self_influence"}
    assert min(choice.weights.values()) > 0.1
    assert choice.uses("self_influence")
    assert not choice.uses("harm")


def test_the_combination_is_measured_on_copies_that_it_was_not_fitted_to() -> None:
    """What finds the errors of one copy but not of the other must not make the combination look better than it is."""
    given = copies("images", ("image", "confusion"), {})
    chance = [
        CopyScores(one.protocol, one.scores.assign(**{name: one.is_wrong * 9.0}), one.is_wrong, one.seconds)
        for one, name in zip(given, ("loss", "harm"), strict=True)
    ]
    table = choose("images", chance).table
    measured = table.loc[table["candidate"] == COMBINATION, "auc"]
    assert measured.max() < 0.7


def test_errors_of_the_data_do_not_count_against_the_score_that_finds_them() -> None:
    """A tenth of the items are wrong by themselves: the classifier finds them, but the model has memorised them."""
    made = copies("images", ("image", "confusion"), {"classifier": 4.0, "scoring_loss": 4.0})
    for one in made:
        one.scores.loc[40:79, "classifier"] += 4.0
    choice = choose("images", made)
    assert choice.candidate == choice.evidence == "classifier"
    assert choice.odds.ceiling == pytest.approx(0.5, abs=0.1)
    assert choice.table["items"].between(330, 370).all()
    assert choice.table.loc[choice.table["chosen"], "average_precision"].min() > 0.97


def test_one_copy_is_enough() -> None:
    choice = choose("images", copies("images", ("image",), {"scoring_loss": 3.0}))
    assert choice.candidate == "scoring_loss"
