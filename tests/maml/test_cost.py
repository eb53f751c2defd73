"""Costs in meta-gradients and their seconds at a measured pace."""

from __future__ import annotations

import pytest

from core.maml.cost import Cost, Pace, seconds_of, training_cost, training_passes
from core.maml.settings import TrainSettings


def test_the_cost_of_training_counts_tasks() -> None:
    assert training_cost(TrainSettings(iterations=10, meta_batch=12), 100) == 120
    assert training_cost(TrainSettings(iterations=10, meta_batch=12), 5) == 50
    assert training_cost(TrainSettings(iterations=10, meta_batch=2, polish=10), 100) == 20 + 1300


def test_seconds_are_computed_from_the_measured_passes() -> None:
    assert seconds_of(Cost(3, 5, 7), Pace(1, 10, 100)) == 3 + 50 + 700


def test_the_pace_of_other_passes_is_derived_from_that_of_gradients() -> None:
    assert seconds_of(Cost(3, 5, 7), Pace(0.1)) == pytest.approx(0.1 * Cost(3, 5, 7).meta_gradients)
    settings = TrainSettings(iterations=10, meta_batch=4, polish=2)
    assert seconds_of(training_passes(settings, 100), Pace(0.1)) == pytest.approx(0.1 * training_cost(settings, 100))
