"""Predicted times follow from the measured passes and the size of the problem."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.actions.compute import Compute, load
from core.checkpoints.model import Model, ModelSpec
from core.editing import measured_cost as cost
from core.maml.cost import LINE_SEARCH, Pace
from core.maml.loaded import Loaded
from core.maml.settings import TrainSettings
from core.runtime.progress import Progress
from core.tasks.generate import TaskSettings, generate
from core.workspace.workspace import Project


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    """Return 100 training and 10 held-out tasks of two ways, one shot and two queries."""
    tasks = generate(TaskSettings(ways=2, shots=1, queries=2, count=100, heldout=10, validation=0))
    spec = ModelSpec(ways=2, filters=2)
    return load(Project(tasks.images(), tasks, Model(spec, spec.init(0, torch.float64), {})), Compute("cpu"))


def test_predicted_times_are_paces_times_numbers_of_tasks(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    paces = iter(
        [
            cost.PassTime(0.01, 1.0, 0.5),  # forward
            cost.PassTime(0.1, 2.0, 0.6),  # gradient
            cost.PassTime(0.2, 3.0, 0.9),  # product
            cost.PassTime(0.3, 4.0, 0.8),  # scores
        ]
    )
    monkeypatch.setattr(cost, "_pass_time", lambda run, tasks, device: next(paces))
    settings = TrainSettings(iterations=50, meta_batch=4, polish=3)
    found = {one.stage: one for one in cost.estimate_costs(loaded, settings, Progress())}
    assert list(found) == ["Train", "Evaluate", "Rank", "Fine-tune"]
    assert found["Train"].low == pytest.approx(0.1 * (50 * 4 + 3 * LINE_SEARCH * 100) + 2 + cost._STARTUP_SECONDS)
    assert (
        found["Evaluate"].low
        == found["Evaluate"].high
        == pytest.approx(0.01 * 10 + 0.1 * 100 + 1 + 2 + cost._STARTUP_SECONDS)
    )
    once, product = 0.1 * 10 + 0.3 * 100 + 2 + 3 + 4 + cost._STARTUP_SECONDS, 0.2 * 64
    assert found["Rank"].low == pytest.approx(once + 40 * product)
    assert found["Rank"].high == pytest.approx(once + 85 * product)
    assert found["Rank"].gb == pytest.approx(0.9 + 600 * 600 / 1e9)
    control = 40 * 12
    assert found["Fine-tune"].low == pytest.approx(0.1 * (40 * 12 + control) + 2 + cost._STARTUP_SECONDS)


def test_a_pass_is_repeated_until_it_gets_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 8.0, 10.0, 12.0, 20.0, 21.0, 30.0, 31.0])  # runs of 8, 2, 1 and 1 seconds
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    pace = cost._pass_time(lambda: None, 4, torch.device("cpu"))
    assert pace.seconds == 0.25
    assert pace.warmup == 7.0


def test_every_pass_runs(loaded: Loaded) -> None:
    found = cost.estimate_costs(loaded, None, Progress())
    assert [one.stage for one in found] == ["Evaluate", "Rank", "Fine-tune"]
    assert all(0 < one.low <= one.high and one.gb > 0.05 for one in found)


def test_the_measured_pace_is_that_of_a_gradient(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_pass_time", lambda run, tasks, device: cost.PassTime(0.1, 1.0, 0.5))
    assert cost.measure_pace(loaded) == Pace(0.1)
