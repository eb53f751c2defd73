"""Forecasts are valid curves, and their intervals cover the truth about as often as they should."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from core.review.calibration import error_llr
from core.review.forecast import ERROR_LLR, Forecast, error_rate, forecast, probabilities
from tests.properties import examples

CLASSES = 10


def simulated(seed: int, n: int = 500) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a queue and which of its labels are wrong, for a calibrated classifier."""
    rng = np.random.default_rng(seed)
    share, sharp = rng.uniform(0.04, 0.2), rng.uniform(2.0, 5.0)
    p = softmax(sharp * rng.normal(size=(n, CLASSES)), axis=1)
    true = (p.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=CLASSES - 1)
    wrong = rng.random(n) < share
    given = np.where(wrong, (true + rng.integers(1, CLASSES, n)) % CLASSES, true)
    evidence = error_llr(pd.Series(-np.log(p[np.arange(n), given])), CLASSES)
    order = np.argsort(-evidence)
    return pd.DataFrame({ERROR_LLR: evidence[order]}), wrong[order]


def check(expected: Forecast, n: int, decided: dict[int, bool]) -> None:
    curves = (
        expected.found,
        expected.found_low,
        expected.found_high,
        expected.remaining,
        expected.remaining_low,
        expected.remaining_high,
    )
    assert all(len(curve) == n + 1 and np.isfinite(curve).all() for curve in curves)
    p = expected.probability
    assert ((p >= 0) & (p <= 1)).all()
    for curve in curves[:3]:
        assert curve[0] == 0
        assert (np.diff(curve) >= -1e-9).all()
    for curve in curves[3:]:
        assert abs(curve[-1]) < 1e-6
        assert (np.diff(curve) <= 1e-9).all()
    np.testing.assert_allclose(expected.found + expected.remaining, expected.found[-1], atol=1e-9)
    np.testing.assert_allclose(np.diff(expected.found), p, atol=1e-9)
    assert (expected.found_low <= expected.found_high).all()
    assert (expected.remaining_low <= expected.remaining_high).all()
    for at, wrong in decided.items():
        assert p[at] == wrong
    open_ = np.setdiff1d(np.arange(n), list(decided))
    assert (np.diff(p[open_]) <= 1e-9).all()  # falls with depth


def test_an_uncalibrated_queue_has_no_forecast() -> None:
    assert forecast(pd.DataFrame({"suspicion": [2.0, 1.0]})) is None
    assert forecast(pd.DataFrame({ERROR_LLR: np.zeros(0)})) is None


def test_right_labels_lower_the_rate_of_errors_that_no_score_shows() -> None:
    items = pd.DataFrame({ERROR_LLR: np.r_[np.full(500, 5.0), np.full(500, -50.0)]})
    before, after = forecast(items), forecast(items, dict.fromkeys(range(500, 950), False))
    assert before is not None
    assert after is not None
    assert after.probability[-1] < 0.3 * before.probability[-1]


@given(
    evidence=st.lists(st.floats(-80, 80), min_size=1, max_size=120),
    verdicts=st.lists(st.tuples(st.integers(0, 119), st.booleans()), max_size=30),
)
@examples(25)
def test_forecasts_are_valid_curves(evidence: list[float], verdicts: list[tuple[int, bool]]) -> None:
    items, n = pd.DataFrame({ERROR_LLR: evidence}), len(evidence)
    decided = {at: wrong for at, wrong in verdicts if at < n}
    expected = forecast(items, decided)
    assert expected is not None
    check(expected, n, decided)


@given(evidence=st.lists(st.floats(-80, 80), min_size=1, max_size=300))
@examples(50)
def test_probabilities_grow_with_the_likelihood_ratio(evidence: list[float]) -> None:
    found = probabilities(np.array(evidence))
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found[np.argsort(evidence)]) >= 0).all()


def test_the_error_rate_has_the_highest_likelihood() -> None:
    for seed in range(5):
        items, _ = simulated(seed, n=2000)
        evidence = items[ERROR_LLR].to_numpy()
        tried = np.linspace(0.001, 0.6, 600)
        likelihood = np.log1p(np.expm1(evidence) * tried[:, None]).sum(1)
        assert error_rate(evidence) == pytest.approx(tried[likelihood.argmax()], abs=0.002)


def test_the_expected_number_of_errors_is_right_on_average() -> None:
    expected, wrong = np.zeros(20), np.zeros(20)
    for seed in range(20):
        items, truth = simulated(seed)
        found = forecast(items)
        assert found is not None
        expected[seed], wrong[seed] = found.found[-1], truth.sum()
    assert expected.sum() == pytest.approx(wrong.sum(), rel=0.15)
    assert np.corrcoef(expected, wrong)[0, 1] > 0.8


def test_deciding_everything_leaves_no_uncertainty() -> None:
    items, wrong = simulated(0, n=60)
    expected = forecast(items, dict(enumerate(map(bool, wrong))))
    assert expected is not None
    np.testing.assert_array_equal(expected.found_low, expected.found_high)
    assert expected.found[-1] == wrong.sum()


def test_intervals_cover_the_truth_and_decisions_narrow_them() -> None:
    many, widths = 40, np.zeros((40, 3))
    covered = np.zeros((3, 3))
    for seed in range(many):
        items, wrong = simulated(seed)
        truth = np.r_[0, np.cumsum(wrong)]
        left = truth[-1] - truth
        for row, checked in enumerate((0, 30, 120)):
            decided = {at: bool(wrong[at]) for at in range(checked)}
            expected = forecast(items, decided)
            assert expected is not None
            check(expected, len(items), decided)
            widths[seed, row] = expected.remaining_high[0] - expected.remaining_low[0]
            for place, depth in enumerate((0, 50, 125)):
                covered[row, place] += expected.remaining_low[depth] <= left[depth] <= expected.remaining_high[depth]
    assert (np.diff(widths.mean(0)) < 0).all()
    assert (covered >= 0.9 * many).all(), covered


@pytest.mark.parametrize("wrong", [True, False])
def test_decisions_change_the_forecast_below(wrong: bool) -> None:
    items, _ = simulated(1)
    plain = forecast(items)
    expected = forecast(items, dict.fromkeys(range(20, 60), wrong))
    assert plain is not None
    assert expected is not None
    below = slice(60, 90)
    assert (expected.probability[below].mean() > plain.probability[below].mean()) == wrong
