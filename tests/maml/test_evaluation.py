"""The interval of a mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from core.maml.evaluation import Interval


def test_the_interval_is_that_of_students_t() -> None:
    values = np.array([0.5, 0.7, 0.4, 0.9])
    interval = Interval.of(values)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (interval.low, interval.mean, interval.high) == pytest.approx((low, values.mean(), high))


def test_a_single_value_has_an_interval_of_width_0() -> None:
    assert Interval.of([0.5]) == Interval(0.5, 0.5, 0.5)
