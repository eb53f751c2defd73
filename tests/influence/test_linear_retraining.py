"""Retraining on a linear inner model: removing one thing altogether does what its score says.

Both ways of adapting, at an optimum reached to machine precision (:mod:`tests.influence.test_retraining` has the
machinery). Tasks, query rows and support rows are taken away whole. Prop. 4.8 prints a minus for the support case
where the appendix has a plus; with the minus every sign would turn round, and these tests would fail.
"""

from __future__ import annotations

import pytest
import torch

from core.influence.curvature import Curvature
from core.influence.scores import instance_table, task_table
from core.influence.solvers import conjugate_gradients
from core.influence.targets import target_gradient
from core.maml.adaptation import Implicit, Unrolled
from core.maml.backbone import MLP
from core.maml.objective import Adaptation, Bilevel
from core.maml.training import TrainSettings, stationarity, train
from core.maml.vectors import flatten, unflatten
from tests.influence.test_retraining import (
    TOLERANCE,
    Optimum,
    agrees,
    episodes_of,
    gradient_of,
    hessian_at,
    minimise,
)

WAYS = {"unrolled": Unrolled(2, 0.5), "implicit": Implicit(1.0, 1e-11)}


@pytest.fixture(scope="module", params=WAYS)
def optimum(request: pytest.FixtureRequest) -> Optimum:
    # Solving every inner problem anew at every step is slow, so the implicit case is smaller and less exact.
    return (
        optimum_of(WAYS["unrolled"], 20, TOLERANCE)
        if request.param == "unrolled"
        else optimum_of(WAYS["implicit"], 12, 1e-6)
    )


def optimum_of(adaptation: Adaptation, tasks: int, tolerance: float) -> Optimum:
    network = MLP(3, hidden=(), shape=(4, 4, 1))
    model = Bilevel(network, adaptation, delta=0.3)
    episodes = episodes_of(tasks, queries=3, seed=0, shots=4, side=4)
    heldout = episodes_of(4, queries=4, seed=9, shots=4, side=4)
    settings = TrainSettings(iterations=0, polish=60, tolerance=1e-4)
    params = train(model, network.init(0, torch.float64), episodes, settings).params
    params = unflatten(minimise(model, flatten(params), params, episodes, None), params)
    gradient, loss = target_gradient(model, params, heldout)
    curvature = Curvature("exact", model, params, episodes)
    solution = conjugate_gradients(curvature, gradient, shift=model.delta, tolerance=1e-9, iterations=500)
    assert solution.converged
    inverse = torch.linalg.inv(hessian_at(flatten(params), gradient_of(model, params, episodes)))
    instances = instance_table(model, params, solution.x, episodes)
    return Optimum(model, params, episodes, heldout, inverse, loss, instances, tolerance)


def test_the_optimum_is_one(optimum: Optimum) -> None:
    assert stationarity(optimum.model, optimum.params, optimum.train).ratio < optimum.tolerance
    assert torch.linalg.eigvalsh(optimum.inverse).min() > 0
    assert optimum.loss < 0.8  # and not the collapse to chance, log 3


def test_retraining_without_a_task_does_what_its_score_says(optimum: Optimum) -> None:
    tasks = task_table(optimum.instances)
    masks = [(optimum.instances["task_id"] == name).to_numpy() for name in tasks["task_id"]]
    agrees(optimum.changes(masks), tasks["score"].to_numpy())


@pytest.mark.parametrize(("role", "every"), [("query", 9), ("support", 10)])
def test_retraining_without_a_row_does_what_its_score_says(optimum: Optimum, role: str, every: int) -> None:
    rows = optimum.rows(role, every)
    assert len(rows) >= 10
    agrees(optimum.changes(optimum.one_row(rows)), optimum.instances["score"].to_numpy()[rows])
