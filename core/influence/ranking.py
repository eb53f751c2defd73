"""Rankings of all training tasks, instances and images by an :class:`~core.influence.methods.Estimator`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from core.influence.curvature import configure_gradient
from core.influence.scores import check_scores, image_table, instance_table, task_table
from core.influence.settings import Estimator
from core.influence.solve import Solver
from core.influence.targets import Target, target_gradient
from core.maml.loaded import Loaded
from core.maml.objective import Bilevel
from core.maml.storage import ResultStore, StepWriter
from core.maml.training import Snapshot
from core.runtime.progress import Progress


@dataclass(frozen=True, eq=False)
class Ranking:
    """Scores by level (:mod:`core.influence.scores`) and a report on how they were computed.

    The report is :meth:`core.influence.solve.Solver.report`, the loss of the target, and figures of the method.
    """

    instances: pd.DataFrame
    tasks: pd.DataFrame
    images: pd.DataFrame
    report: dict[str, Any]

    @classmethod
    def from_instances(cls, instances: pd.DataFrame, report: dict[str, Any]) -> Ranking:
        """Sum the scores of instances to those of tasks and images."""
        return cls(instances, task_table(instances), image_table(instances), report)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables by level."""
        return {"instances": self.instances, "tasks": self.tasks, "images": self.images}


def influence_ranking(
    loaded: Loaded,
    target: Target,
    estimator: Estimator,
    steps: StepWriter,
    progress: Progress,
    store: ResultStore | None = None,
) -> Ranking:
    """Rank by the influence on a target's loss, or without a curvature by products of gradients.

    Raises:
        UserError: the target is not held out, the solve did not converge, or the scores rank nothing.
    """
    model = configure_gradient(loaded.model, estimator.gradient, estimator.inner)
    evaluated = configure_gradient(loaded.model, estimator.evaluation, estimator.inner)
    v, loss = _target_gradient(loaded, target, evaluated, steps, progress)
    if estimator.solve is None:
        u, report = v, _report_without_solve(loaded)
    else:
        solver = Solver(loaded, model, estimator.solve, steps, progress, store)
        solution = solver.solve(v)
        u, report = solution.x, solver.report(solution)
    return Ranking.from_instances(score_rows(loaded, model, u, steps, progress), report | {"target_loss": loss})


def tracin_ranking(
    loaded: Loaded, target: Target, trajectory: Sequence[Snapshot], steps: StepWriter, progress: Progress
) -> Ranking:
    """Rank by TracIn; all columns but the scores are those of the final model."""

    def scores_at(snapshot: Loaded) -> np.ndarray:
        v, _ = _target_gradient(snapshot, target, snapshot.model, steps, progress)
        return score_rows(snapshot, snapshot.model, v, steps, progress)["score"].to_numpy()

    v, loss = _target_gradient(loaded, target, loaded.model, steps, progress)
    instances = score_rows(loaded, loaded.model, v, steps, progress)
    scores = sum_over_checkpoints(loaded, trajectory, scores_at, progress)
    check_scores(scores)
    report = _report_without_solve(loaded) | {"target_loss": loss, "checkpoints": len(trajectory)}
    return Ranking.from_instances(instances.assign(score=scores), report)


def sum_over_checkpoints(
    loaded: Loaded, trajectory: Sequence[Snapshot], scores_at: Callable[[Loaded], np.ndarray], progress: Progress
) -> np.ndarray:
    """Return TracIn, ``sum_c rate_c scores(lambda_c)`` over the snapshots of a training (Pruthi et al. 2020, sec. 3.2).

    Args:
        scores_at: Returns products of gradients at the meta-parameters of a snapshot.
    """
    total: np.ndarray | float = 0.0
    for number, snapshot in enumerate(trajectory, 1):
        total = total + snapshot.rate * scores_at(loaded.with_params(snapshot.params))
        progress.advance(0, note=f"checkpoint {number} of {len(trajectory)}")
    return np.asarray(total)


def score_rows(loaded: Loaded, model: Bilevel, u: Tensor, steps: StepWriter, progress: Progress) -> pd.DataFrame:
    """Return the table of all training rows, scored along ``u`` ``(P,)`` (:func:`.scores.instance_table`)."""
    progress.stage("scores", len(loaded.train))
    with steps.timed("scores"):
        return instance_table(model, loaded.params, u, loaded.train, progress.advance, steps.memory())


def _target_gradient(
    loaded: Loaded, target: Target, model: Bilevel, steps: StepWriter, progress: Progress
) -> tuple[Tensor, float]:
    heldout = loaded.episodes(target.weighted(loaded.heldout_tasks))
    progress.stage("target gradient", len(heldout))
    with steps.timed("target gradient"):
        return target_gradient(model, loaded.params, heldout, progress.advance)


def _report_without_solve(loaded: Loaded) -> dict[str, Any]:
    return {
        "curvature": "none",
        "solver": "none",
        "tasks": len(loaded.train),
        "device": str(loaded.device),
        "dtype": loaded.compute.dtype,
    }
