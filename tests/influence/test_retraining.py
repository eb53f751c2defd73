"""The truth: remove something, train to the optimum again, and see whether the scores foretold what happens.

The network learns three digits from 24 small tasks whose labels name the digits, so that an optimum is reached to
machine precision: by the polish first, by Newton's method then. With the exact curvature and no damping the scores
are derivatives of the retrained model, so a small step of a weight must agree closely. The removal of a whole task
or row is not small; there the ranks are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.func import grad, jvp, vmap

from core.editing.linear import change_gradient
from core.influence.curvature import Curvature
from core.influence.scores import instance_table, task_table
from core.influence.solvers import conjugate_gradients
from core.influence.targets import target_gradient
from core.maml.adaptation import Unrolled
from core.maml.backbone import ConvNet, Params
from core.maml.episodes import Episodes, total
from core.maml.objective import Bilevel
from core.maml.training import TrainSettings, stationarity, train
from core.maml.vectors import flatten, unflatten
from core.tasks.tasklist import TaskList, from_rows
from tests.problems import tiny_images, tiny_tasks

TOLERANCE = 1e-8


def episodes_of(count: int, queries: int, seed: int, shots: int = 2, side: int = 7) -> Episodes:
    images = tiny_images(side, classes=3)
    drawn = tiny_tasks(images, ways=3, shots=shots, queries=queries, count=count, seed=seed)
    rows = drawn.rows.assign(label=drawn.rows["class"].astype(int))
    return Episodes(from_rows(rows, source="digits"), images, dtype=torch.float64, chunk=count)


@dataclass(frozen=True)
class Optimum:
    """A model at the optimum, the inverse Hessian there, and what the engine says."""

    model: Bilevel
    params: Params
    train: Episodes
    heldout: Episodes
    inverse: Tensor
    loss: float
    instances: pd.DataFrame
    tolerance: float = TOLERANCE

    def retrained(self, weights: np.ndarray) -> float:
        """Change of the held-out loss when the objective is minimised again with other weights."""
        episodes = self.train.with_weights(weights)
        flat = minimise(self.model, flatten(self.params), self.params, episodes, self.inverse, self.tolerance)
        return target_gradient(self.model, unflatten(flat, self.params), self.heldout)[1] - self.loss

    def relabelled(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Change of the held-out loss when a row gets the next label, for each of ``rows``: after retraining, and as
        the linear edit with the exact curvature foretells it."""
        table, v = self.train.tasks.rows, target_gradient(self.model, self.params, self.heldout)[0]
        found, foretold = [], []
        for row in rows:
            labels = table["label"].to_numpy().copy()
            labels[row] = (labels[row] + 1) % 3
            step = self.inverse @ change_gradient(self.model, self.params, self.train, np.ones(len(table)), labels)
            foretold.append(float(v @ step))
            tasks = TaskList(table.assign(label=labels))
            episodes = Episodes(tasks, tiny_images(7, classes=3), dtype=torch.float64, chunk=len(self.train))
            flat = minimise(self.model, flatten(self.params), self.params, episodes, self.inverse, self.tolerance)
            found.append(target_gradient(self.model, unflatten(flat, self.params), self.heldout)[1] - self.loss)
        return np.array(found), np.array(foretold)

    def changes(self, masks: list[np.ndarray], share: float = 1.0) -> np.ndarray:
        """What retraining without ``share`` of the weight of each mask changes, per unit of weight."""
        return np.array([self.retrained(1.0 - share * mask) / share for mask in masks])

    def rows(self, role: str, every: int) -> np.ndarray:
        return np.flatnonzero(self.instances["role"] == role)[::every]

    def one_row(self, numbers: np.ndarray) -> list[np.ndarray]:
        return [np.arange(len(self.instances)) == number for number in numbers]


def gradient_of(model: Bilevel, like: Params, episodes: Episodes) -> Callable[[Tensor], Tensor]:
    (chunk,) = episodes.chunks()

    def gradient(flat: Tensor) -> Tensor:
        return flatten(grad(total(model.task_loss))(unflatten(flat, like), chunk.task)) + model.delta * flat

    return gradient


def hessian_at(flat: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
    return vmap(lambda d: jvp(gradient, (flat,), (d,))[1])(torch.eye(len(flat), dtype=flat.dtype))


def minimise(
    model: Bilevel, flat: Tensor, like: Params, episodes: Episodes, inverse: Tensor | None, tolerance: float = TOLERANCE
) -> Tensor:
    """Newton's method from ``flat``, with a given inverse Hessian for as long as that leads on quickly."""
    gradient = gradient_of(model, like, episodes)
    steps = 0
    while stationarity(model, unflatten(flat, like), episodes).ratio > tolerance:
        steps += 1
        assert steps < 60, "no optimum was reached"
        if inverse is not None and steps < 20:
            for _ in range(3):
                flat = flat - inverse @ gradient(flat)
            continue
        g = gradient(flat)
        values, vectors = torch.linalg.eigh(hessian_at(flat, gradient))
        step = vectors @ ((vectors.T @ g) / values.abs().clamp_min(1e-3))
        while gradient(flat - step).norm() > g.norm() and step.norm() > 1e-9:
            step = step / 2
        flat = flat - step
    return flat


@pytest.fixture(scope="module")
def optimum() -> Optimum:
    network = ConvNet(3, filters=3, shape=(7, 7, 1), blocks=1)
    model = Bilevel(network, Unrolled(1, 0.3), delta=0.6)
    episodes, heldout = episodes_of(24, queries=3, seed=0), episodes_of(4, queries=4, seed=9)
    settings = TrainSettings(iterations=0, polish=200, tolerance=1e-5)
    params = train(model, network.init(0, torch.float64), episodes, settings).params
    params = unflatten(minimise(model, flatten(params), params, episodes, None), params)
    gradient, loss = target_gradient(model, params, heldout)
    curvature = Curvature("exact", model, params, episodes)
    solution = conjugate_gradients(curvature, gradient, shift=model.delta, tolerance=1e-9, iterations=500)
    assert solution.converged
    inverse = torch.linalg.inv(hessian_at(flatten(params), gradient_of(model, params, episodes)))
    instances = instance_table(model, params, solution.x, episodes)
    return Optimum(model, params, episodes, heldout, inverse, loss, instances)


def test_the_optimum_is_one(optimum: Optimum) -> None:
    assert stationarity(optimum.model, optimum.params, optimum.train).ratio < TOLERANCE
    assert torch.linalg.eigvalsh(optimum.inverse).min() > 0  # a minimum, not a saddle
    assert optimum.loss < 0.7  # and not the collapse to chance, log 3


def test_a_small_step_of_a_weight_changes_the_loss_as_scored(optimum: Optimum) -> None:
    rows = np.concatenate([optimum.rows("support", 24), optimum.rows("query", 36)])
    scores = optimum.instances["score"].to_numpy()[rows]
    changes = optimum.changes(optimum.one_row(rows), share=0.01)
    np.testing.assert_allclose(changes, scores, rtol=0.05, atol=0.02 * np.abs(scores).max())


def test_retraining_without_a_task_does_what_its_score_says(optimum: Optimum) -> None:
    tasks = task_table(optimum.instances)
    masks = [(optimum.instances["task_id"] == name).to_numpy() for name in tasks["task_id"]]
    agrees(optimum.changes(masks), tasks["score"].to_numpy())


def test_retraining_without_a_query_row_does_what_its_score_says(optimum: Optimum) -> None:
    rows = optimum.rows("query", 11)
    agrees(optimum.changes(optimum.one_row(rows)), optimum.instances["score"].to_numpy()[rows])


def test_retraining_with_a_support_row_at_half_its_weight_does_what_its_score_says(optimum: Optimum) -> None:
    """Half of it, because one support row of six bends the adaptation so much that taking all of it away is no small
    step any more: over all 144 support rows the ranks then agree far less well.
    """
    rows = optimum.rows("support", 8)
    agrees(optimum.changes(optimum.one_row(rows), share=0.5), optimum.instances["score"].to_numpy()[rows])


def test_retraining_with_a_query_row_relabelled_does_what_the_edit_says(optimum: Optimum) -> None:
    """Rows whose retraining reaches an optimum: another choice (every 14th) holds one that finds none in 60 steps.

    Of support rows docs/method.md has the figures: another label of one of six is no small step.
    """
    agrees(*optimum.relabelled(optimum.rows("query", 11)))


def agrees(changes: np.ndarray, scores: np.ndarray) -> None:
    """The ranks agree, and whatever is not next to nothing has the right sign."""
    assert spearmanr(changes, scores).statistic >= 0.95
    large = np.abs(scores) > 0.25 * np.abs(scores).max()
    assert (np.sign(changes) == np.sign(scores))[large].all()
