"""Optima reached to machine precision, to retrain from after something is removed or relabelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.func import grad, jvp, vmap

from core.editing.linear import change_gradient
from core.influence.curvature import Curvature
from core.influence.scores import instance_table
from core.influence.solvers import conjugate_gradients
from core.influence.targets import target_gradient
from core.maml.backbone import Params
from core.maml.episodes import Episodes, sum_over_tasks
from core.maml.objective import Bilevel
from core.maml.training import TrainSettings, stationarity, train
from core.maml.vectors import flatten, unflatten
from core.tasks.tasklist import TaskList, from_rows
from tests.problems import tiny_images, tiny_tasks, with_weights

TOLERANCE = 1e-8


def episodes_of(count: int, queries: int, seed: int, shots: int = 2, side: int = 7) -> Episodes:
    images = tiny_images(side, classes=3)
    drawn = tiny_tasks(images, ways=3, shots=shots, queries=queries, count=count, seed=seed)
    rows = drawn.rows.assign(label=drawn.rows["class"].astype(int))
    return Episodes(from_rows(rows, source="digits"), images, dtype=torch.float64, chunk=count)


@dataclass(frozen=True)
class Optimum:
    """A model at its optimum, the inverse Hessian there, and the scores of the engine."""

    model: Bilevel
    params: Params
    train: Episodes
    heldout: Episodes
    inverse: Tensor
    loss: float
    instances: pd.DataFrame
    tolerance: float = TOLERANCE

    def retrained(self, weights: np.ndarray) -> float:
        """Return the change of the held-out loss when the objective is minimised again with other weights."""
        episodes = with_weights(self.train, weights)
        flat = minimise(self.model, flatten(self.params), self.params, episodes, self.inverse, self.tolerance)
        return target_gradient(self.model, unflatten(flat, self.params), self.heldout)[1] - self.loss

    def relabelled(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the change of the held-out loss when a row gets the next label, for each of ``rows``: measured by
        retraining, and predicted by the linear edit with the exact curvature.
        """
        table, v = self.train.tasks.rows, target_gradient(self.model, self.params, self.heldout)[0]
        measured, predicted = [], []
        for row in rows:
            labels = table["label"].to_numpy().copy()
            labels[row] = (labels[row] + 1) % 3
            step = self.inverse @ change_gradient(self.model, self.params, self.train, np.ones(len(table)), labels)
            predicted.append(float(v @ step))
            tasks = TaskList(table.assign(label=labels))
            episodes = Episodes(tasks, tiny_images(7, classes=3), dtype=torch.float64, chunk=len(self.train))
            flat = minimise(self.model, flatten(self.params), self.params, episodes, self.inverse, self.tolerance)
            measured.append(target_gradient(self.model, unflatten(flat, self.params), self.heldout)[1] - self.loss)
        return np.array(measured), np.array(predicted)

    def changes(self, masks: list[np.ndarray], share: float = 1.0) -> np.ndarray:
        """Return the change that retraining without ``share`` of the weight of each mask makes, per unit of weight."""
        return np.array([self.retrained(1.0 - share * mask) / share for mask in masks])

    def rows(self, role: str, every: int) -> np.ndarray:
        return np.flatnonzero(self.instances["role"] == role)[::every]

    def one_row(self, numbers: np.ndarray) -> list[np.ndarray]:
        return [np.arange(len(self.instances)) == number for number in numbers]


def gradient_of(model: Bilevel, like: Params, episodes: Episodes) -> Callable[[Tensor], Tensor]:
    (chunk,) = episodes.chunks()

    def gradient(flat: Tensor) -> Tensor:
        return flatten(grad(sum_over_tasks(model.task_loss))(unflatten(flat, like), chunk.task)) + model.delta * flat

    return gradient


def hessian_at(flat: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
    return vmap(lambda d: jvp(gradient, (flat,), (d,))[1])(torch.eye(len(flat), dtype=flat.dtype))


def minimise(
    model: Bilevel, flat: Tensor, like: Params, episodes: Episodes, inverse: Tensor | None, tolerance: float = TOLERANCE
) -> Tensor:
    """Minimise by Newton's method from ``flat``, with a given inverse Hessian while that converges quickly."""
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


def optimum_of(
    model: Bilevel, train_tasks: Episodes, heldout: Episodes, settings: TrainSettings, tolerance: float = TOLERANCE
) -> Optimum:
    """Train to the optimum and score all rows with the exact curvature there."""
    params = train(model, model.network.init(0, torch.float64), train_tasks, settings).params
    params = unflatten(minimise(model, flatten(params), params, train_tasks, None), params)
    gradient, loss = target_gradient(model, params, heldout)
    curvature = Curvature("exact", model, params, train_tasks)
    solution = conjugate_gradients(curvature, gradient, shift=model.delta, tolerance=1e-9, iterations=500)
    assert solution.converged
    inverse = torch.linalg.inv(hessian_at(flatten(params), gradient_of(model, params, train_tasks)))
    instances = instance_table(model, params, solution.x, train_tasks)
    return Optimum(model, params, train_tasks, heldout, inverse, loss, instances, tolerance)


def agrees(changes: np.ndarray, scores: np.ndarray) -> None:
    """Assert that the ranks agree, and that all large changes have the sign of their scores."""
    assert spearmanr(changes, scores).statistic >= 0.95
    large = np.abs(scores) > 0.25 * np.abs(scores).max()
    assert (np.sign(changes) == np.sign(scores))[large].all()
