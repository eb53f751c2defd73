"""Retraining on a linear inner model: removing one item altogether changes the loss as its score predicts.

Both kinds of adaptation, at an optimum reached to machine precision (:mod:`tests.influence.optima`). Tasks, query rows
and support rows are removed whole. Prop. 4.8 prints a minus for the support case where the appendix has a plus; with
the minus every sign would be reversed, and these tests would fail.
"""

from __future__ import annotations

import pytest
import torch

from core.influence.scores import task_table
from core.maml.adaptation import Implicit, Unrolled
from core.maml.backbone import MLP
from core.maml.objective import Bilevel
from core.maml.training import TrainSettings, stationarity
from tests.influence.optima import TOLERANCE, Optimum, agrees, episodes_of, optimum_of

# Solving every inner problem anew at every step is slow, so the implicit case is smaller and less exact.
CASES = {"unrolled": (Unrolled(2, 0.5), 20, TOLERANCE), "implicit": (Implicit(1.0, 1e-11), 12, 1e-6)}


@pytest.fixture(scope="module", params=["unrolled", pytest.param("implicit", marks=pytest.mark.slow)])
def optimum(request: pytest.FixtureRequest) -> Optimum:
    adaptation, tasks, tolerance = CASES[request.param]
    model = Bilevel(MLP(3, hidden=(), shape=(4, 4, 1)), adaptation, delta=0.3)
    train_tasks = episodes_of(tasks, queries=3, seed=0, shots=4, side=4)
    heldout = episodes_of(4, queries=4, seed=9, shots=4, side=4)
    settings = TrainSettings(iterations=0, polish=60, tolerance=1e-4)
    return optimum_of(model, train_tasks, heldout, settings, tolerance)


def test_the_optimum_is_a_minimum(optimum: Optimum) -> None:
    assert stationarity(optimum.model, optimum.params, optimum.train).ratio < optimum.tolerance
    assert torch.linalg.eigvalsh(optimum.inverse).min() > 0
    assert optimum.loss < 0.8  # and not the collapse to chance, log 3


def test_retraining_without_a_task_changes_the_loss_as_scored(optimum: Optimum) -> None:
    tasks = task_table(optimum.instances)
    masks = [(optimum.instances["task_id"] == name).to_numpy() for name in tasks["task_id"]]
    agrees(optimum.changes(masks), tasks["score"].to_numpy())


@pytest.mark.parametrize(("role", "every"), [("query", 9), ("support", 10)])
def test_retraining_without_a_row_changes_the_loss_as_scored(optimum: Optimum, role: str, every: int) -> None:
    rows = optimum.rows(role, every)
    assert len(rows) >= 10
    agrees(optimum.changes(optimum.one_row(rows)), optimum.instances["score"].to_numpy()[rows])
