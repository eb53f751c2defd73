"""Calibration chooses the ranking that finds injected errors and evaluates it on data it was not fitted to."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from core.review.calibration import (
    COMBINATION,
    Calibration,
    ScoredCopy,
    calibrate,
    default_suspicion,
    error_llr,
    robust_scale,
    share_above,
    suspicion,
)

MEMBERS = {"discriminant": 1.6, "kernel": 1.4, "loss": 1.5, "useless": 0.0, "reversed": -1.0}


def copies(n: int = 800, scale: float = 1.0, members: dict[str, float] = MEMBERS) -> list[ScoredCopy]:
    """Return copies whose members separate injected errors by so many standard deviations, with independent noise."""
    rng, noisy_copies = np.random.default_rng(0), []
    noise = rng.normal(size=(n, len(members)))
    for kind, power in (("uniform", 1.0), ("hardest", 0.8)):
        wrong = np.isin(np.arange(n), rng.permutation(n)[:60])
        scores = noise + 0.3 * rng.normal(size=noise.shape) + power * wrong[:, None] * np.array(list(members.values()))
        table = pd.DataFrame(scores, columns=list(members))
        noisy_copies.append(ScoredCopy(kind, table.assign(loss=scale * table["loss"]), wrong, np.arange(n)))
    return noisy_copies


@cache
def usual() -> Calibration:
    return calibrate(copies(), 10)


def test_the_combination_of_independent_members_is_chosen() -> None:
    found = usual()
    assert found.ranking == COMBINATION
    assert all(weight >= 0 for weight in found.weights.values())
    assert found.weights["reversed"] == 0
    assert found.weights["useless"] < 0.3 * found.weights["loss"]
    assert min(found.weights[name] for name in ("discriminant", "kernel", "loss")) > 0.1
    table = found.candidates
    assert set(table["candidate"]) == {*MEMBERS, COMBINATION}
    assert set(table["planted"]) == {"uniform", "hardest"}
    assert (table["chosen"] == (table["candidate"] == COMBINATION)).all()
    assert (table["low"] <= table["average_precision"]).all()
    assert (table["average_precision"] <= table["high"]).all()
    assert table["recall"].between(0, 1).all()


def test_one_good_member_among_bad_ones_keeps_the_ranking_good() -> None:
    found = calibrate(copies(members={"discriminant": 3.0, "kernel": 0.2, "loss": 0.1, "useless": 0.0}), 10)
    mean = found.candidates.groupby("candidate")["average_precision"].mean()
    assert found.ranking in ("discriminant", COMBINATION)
    assert mean["useless"] < 0.3 < mean[found.ranking]


def test_the_combination_is_evaluated_out_of_fold() -> None:
    """Members are pure noise, so that weights evaluated in sample would look better than chance."""
    n = 200
    rng = np.random.default_rng(1)
    names = ["discriminant", "kernel", *(f"noise {number}" for number in range(30))]
    wrong = np.isin(np.arange(n), rng.permutation(n)[:40])
    table = pd.DataFrame(rng.normal(size=(n, len(names))), columns=names)
    found = calibrate([ScoredCopy("uniform", table, wrong, np.arange(n))], 10)
    combined = np.flatnonzero(found.curves["candidate"] == COMBINATION)
    curve = found.curves.iloc[combined]
    area = np.trapezoid(curve["found"], curve["checked"])
    assert abs(area - 0.5) < 0.1  # as by chance


def test_scaling_a_member_changes_nothing() -> None:
    other = calibrate(copies(scale=1000.0), 10)
    np.testing.assert_allclose(list(other.weights.values()), list(usual().weights.values()), rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(other.candidates, usual().candidates, rtol=1e-6)


def test_curves_start_at_0_and_end_at_1() -> None:
    for _, curve in usual().curves.groupby(["candidate", "planted"]):
        assert curve["checked"].iloc[[0, -1]].tolist() == curve["found"].iloc[[0, -1]].tolist() == [0.0, 1.0]
        assert curve["checked"].is_monotonic_increasing
        assert curve["found"].is_monotonic_increasing


def test_share_above_counts_unchanged_items() -> None:
    score, wrong = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([False, True, False, True, False])
    np.testing.assert_allclose(share_above(score, wrong), [1 / 3, 2 / 3])
    assert usual().planted == {"uniform": 60, "hardest": 60}


def test_a_member_is_not_penalised_for_label_errors_of_the_data() -> None:
    """One classifier detects the data's own label errors, the other does not; both detect injected errors."""
    n, rng = 1500, np.random.default_rng(0)
    noisy_copies, own = [], np.arange(n) < 150
    for kind in ("uniform", "hardest"):
        planted = np.isin(np.arange(n), 150 + rng.permutation(n - 150)[:75])
        usual_loss = rng.exponential(0.3, (n, 2))
        seen = planted[:, None] * rng.uniform([0.5, 1.0], [4.0, 4.5], (n, 2))
        seen[own, 1] += 8.0
        table = pd.DataFrame(usual_loss + seen, columns=["discriminant", "kernel"])
        noisy_copies.append(ScoredCopy(kind, table, planted, np.arange(n)))
    found = calibrate(noisy_copies, 10)
    assert found.classifier == "kernel"
    mean = found.candidates.groupby("candidate")["average_precision"].mean()
    assert mean["kernel"] > mean["discriminant"] > 0.8


def test_error_llr_by_hand() -> None:
    found = error_llr(pd.Series([-np.log(0.1), -np.log(0.9), 0.0]), 10)
    np.testing.assert_allclose(found[:2], [0.0, np.log(0.1 / 9 / 0.9)], atol=1e-12)  # of even odds; of a likely label
    assert np.isfinite(found[2])
    assert found[2] < -15


def test_suspicion_is_the_chosen_score() -> None:
    table = copies()[0].scores
    scaled = robust_scale(table)
    np.testing.assert_array_equal(suspicion(table, "loss", {}), scaled["loss"])
    weights = {"loss": 0.5, "kernel": 2.0}
    expected = 0.5 * scaled["loss"] + 2 * scaled["kernel"]
    np.testing.assert_allclose(suspicion(table, COMBINATION, weights), expected)
    np.testing.assert_allclose(default_suspicion(table), (scaled["discriminant"] + scaled["kernel"]) / 2)


def test_constant_members_are_accepted() -> None:
    table = pd.DataFrame({"same": np.full(9, 3.0), "one": np.r_[np.zeros(8), 4.0]})
    found = robust_scale(table)
    assert (found["same"] == 0).all()
    assert np.isfinite(found.to_numpy()).all()
    assert found["one"][8] > 0
