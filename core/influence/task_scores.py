"""Scores of all training tasks for many targets at once: one row per training task, one column per target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.influence.curvature import configure_gradient, task_gradients
from core.influence.ranking import sum_over_checkpoints
from core.influence.settings import Estimator
from core.influence.solve import Solver
from core.maml.loaded import Loaded
from core.maml.objective import Bilevel
from core.maml.storage import StepWriter
from core.maml.training import Snapshot
from core.runtime.progress import Progress
from core.tasks.tasklist import TaskList


@dataclass(frozen=True)
class TaskScores:
    """Scores ``(N, T)`` of N training tasks for T targets, positive = helpful; ``note`` is for the reader.

    ``residual`` is the worst relative one of the solves; None if there are none.
    """

    scores: np.ndarray
    residual: float | None = None
    note: str = ""


def influence_task_scores(
    loaded: Loaded, estimator: Estimator, targets: TaskList, steps: StepWriter, progress: Progress
) -> TaskScores:
    """Score by influence, or without a curvature by products of gradients (Thm 4.3); each target is one task.

    Raises:
        UserError: a solve did not converge.
    """
    evaluated = configure_gradient(loaded.model, estimator.evaluation, estimator.inner)
    v = _target_gradients(loaded, evaluated, targets, progress)
    model = configure_gradient(loaded.model, estimator.gradient, estimator.inner)
    if estimator.solve is None:
        return TaskScores(_gradient_products(loaded, model, v, progress))
    solver = Solver(loaded, model, estimator.solve, steps, progress)
    solver.solve(v.mean(0))  # fixes the damping, so that it is the same for all targets
    solutions = [solver.solve(one) for one in v]
    u = torch.stack([solution.x for solution in solutions])
    worst = max(solution.residual for solution in solutions)
    return TaskScores(_gradient_products(loaded, model, u, progress), worst)


def tracin_task_scores(
    loaded: Loaded, trajectory: Sequence[Snapshot], targets: TaskList, progress: Progress
) -> TaskScores:
    """Score by TracIn over the snapshots of the training."""

    def scores_at(snapshot: Loaded) -> np.ndarray:
        v = _target_gradients(snapshot, snapshot.model, targets, progress)
        return _gradient_products(snapshot, snapshot.model, v, progress)

    return TaskScores(sum_over_checkpoints(loaded, trajectory, scores_at, progress))


def _target_gradients(loaded: Loaded, model: Bilevel, targets: TaskList, progress: Progress) -> Tensor:
    """Return the gradients of the targets' losses ``(T, P)``."""
    progress.stage("target gradients", len(targets))
    return task_gradients(model, loaded.params, loaded.episodes(targets), on_chunk=progress.advance)


def _gradient_products(loaded: Loaded, model: Bilevel, directions: Tensor, progress: Progress) -> np.ndarray:
    """Return the products ``(N, T)`` of the training tasks' gradients with ``(T, P)``."""
    progress.stage("scores", len(loaded.train))
    products = task_gradients(model, loaded.params, loaded.train, None, progress.advance, directions)
    return products.double().cpu().numpy()
