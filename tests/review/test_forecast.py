"""Forecasts are possible curves, and the truth lies within them about as often as they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.review.forecast import ABOVE, Forecast, forecast, probabilities, shares_above, shares_wrong


def simulated(seed: int, n: int = 500, planted: int = 50) -> tuple[pd.DataFrame, np.ndarray]:
    """A queue and which of its labels are wrong: wrong and planted ones score alike."""
    rng = np.random.default_rng(seed)
    share, power = rng.uniform(0.04, 0.2), rng.uniform(2.0, 3.5)
    wrong = rng.random(n) < share
    score = rng.normal(size=n) + power * wrong
    order = np.argsort(-score)
    places = (score[:, None] > rng.normal(power, 1, planted)).mean(0)
    return pd.DataFrame({ABOVE + "uniform": shares_above(n, places)}), wrong[order]


def check(told: Forecast, n: int, decided: dict[int, bool]) -> None:
    curves = (told.found, told.found_low, told.found_high, told.remaining, told.remaining_low, told.remaining_high)
    assert all(len(curve) == n + 1 and np.isfinite(curve).all() for curve in curves)
    p = told.probability
    assert ((p >= 0) & (p <= 1)).all()
    for curve in curves[:3]:
        assert curve[0] == 0
        assert (np.diff(curve) >= -1e-9).all()
    for curve in curves[3:]:
        assert abs(curve[-1]) < 1e-6
        assert (np.diff(curve) <= 1e-9).all()
    np.testing.assert_allclose(told.found + told.remaining, told.found[-1], atol=1e-9)
    np.testing.assert_allclose(np.diff(told.found), p, atol=1e-9)
    assert (told.found_low <= told.found_high).all()
    assert (told.remaining_low <= told.remaining_high).all()
    for at, wrong in decided.items():
        assert p[at] == wrong
    open_ = np.setdiff1d(np.arange(n), list(decided))
    assert (np.diff(p[open_]) <= 1e-9).all()  # falls with depth


def test_nothing_is_foretold_of_a_queue_that_was_not_calibrated() -> None:
    assert forecast(pd.DataFrame({"suspicion": [2.0, 1.0]})) is None
    assert forecast(pd.DataFrame({ABOVE + "uniform": np.zeros(0)})) is None


@given(
    n=st.integers(1, 120),
    places=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=15), min_size=1, max_size=3),
    verdicts=st.lists(st.tuples(st.integers(0, 119), st.booleans()), max_size=30),
)
@settings(max_examples=25)
def test_forecasts_are_possible_curves(n: int, places: list[list[float]], verdicts: list[tuple[int, bool]]) -> None:
    items = pd.DataFrame({f"{ABOVE}{at}": shares_above(n, np.array(one)) for at, one in enumerate(places)})
    decided = {at: wrong for at, wrong in verdicts if at < n}
    told = forecast(items, decided)
    assert told is not None
    check(told, n, decided)


@given(
    n=st.integers(1, 300),
    places=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=15), min_size=1, max_size=3),
)
@settings(max_examples=50)
def test_probabilities_fall(n: int, places: list[list[float]]) -> None:
    above = np.stack([shares_above(n, np.array(one)) for one in places])
    found = probabilities(above)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) <= 1e-9).all()
    shares = shares_wrong(above)
    assert (shares >= 0).all()
    assert shares.sum() <= 1 + 1e-9


def test_shares_above_by_hand() -> None:
    np.testing.assert_allclose(shares_above(4, np.array([0.0, 0.3, 0.5, 1.0])), [0.25, 0.75, 0.75, 1.0])


def test_everything_decided_leaves_nothing_open() -> None:
    items, wrong = simulated(0, n=60)
    told = forecast(items, dict(enumerate(map(bool, wrong))))
    assert told is not None
    np.testing.assert_array_equal(told.found_low, told.found_high)
    assert told.found[-1] == wrong.sum()


def test_the_truth_lies_within_the_intervals_and_decisions_narrow_them() -> None:
    many, widths = 40, np.zeros((40, 3))
    covered = np.zeros((3, 3))
    for seed in range(many):
        items, wrong = simulated(seed)
        truth = np.r_[0, np.cumsum(wrong)]
        left = truth[-1] - truth
        for turn, checked in enumerate((0, 30, 120)):
            decided = {at: bool(wrong[at]) for at in range(checked)}
            told = forecast(items, decided)
            assert told is not None
            check(told, len(items), decided)
            widths[seed, turn] = told.remaining_high[0] - told.remaining_low[0]
            for place, depth in enumerate((0, 50, 125)):
                covered[turn, place] += told.remaining_low[depth] <= left[depth] <= told.remaining_high[depth]
    assert (np.diff(widths.mean(0)) < 0).all()
    assert (covered >= 0.9 * many).all(), covered


@pytest.mark.parametrize("wrong", [True, False])
def test_what_a_reviewer_finds_moves_what_is_foretold_below(wrong: bool) -> None:
    items, _ = simulated(1)
    plain = forecast(items)
    told = forecast(items, dict.fromkeys(range(20, 60), wrong))
    assert plain is not None
    assert told is not None
    below = slice(60, 90)
    assert (told.probability[below].mean() > plain.probability[below].mean()) == wrong
