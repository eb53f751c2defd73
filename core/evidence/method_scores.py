"""Scores of every training task for every target by any method of :mod:`core.evidence.methods`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.evidence.methods import ENSEMBLES, INFLUENCE, base
from core.influence.methods import parse
from core.influence.scores import task_difficulty
from core.influence.task_scores import TaskScores, influence_task_scores, tracin_task_scores
from core.maml.backbone import Params
from core.maml.loaded import Loaded
from core.maml.storage import StepWriter
from core.maml.training import Snapshot
from core.runtime.progress import Progress
from core.tasks.tasklist import TaskList

POOLED_EPOCHS = 16
"""Epochs of the pooled classifier that EK-FAC and self-confidence work on."""
TRAK_DIMENSION = 512
"""Width of TRAK's random projection."""
_ENSEMBLE_METHOD = "task-if:solver=low-rank:rank=60:damping=0.01"  # one basis serves all targets of a model
_SMALLEST_CONFIDENCE = 1e-12  # so that its logarithm is finite
_BASELINE_SEED = 0


@dataclass(frozen=True)
class ScoringInputs:
    """The inputs of the methods.

    Attributes:
        targets: The held-out tasks that are targets.
        models: Meta-parameters trained on all tasks from other seeds, as many as the method needs.
        trajectory: Returns the snapshots of the training; called only by methods that need them.
    """

    loaded: Loaded
    targets: TaskList
    models: Sequence[Params]
    trajectory: Callable[[], Sequence[Snapshot]]

    def constant(self, values: np.ndarray) -> np.ndarray:
        """Repeat scores ``(N,)`` that are the same for every target: ``(N, T)``."""
        return np.repeat(values[:, None], len(self.targets), 1)


def compute_scores(name: str, inputs: ScoringInputs, steps: StepWriter, progress: Progress) -> TaskScores:
    """Score the training tasks by a method that needs no other method's scores.

    Raises:
        UserError: the method cannot run, for example because its library is missing.
    """
    loaded, targets = inputs.loaded, inputs.targets
    if name in ENSEMBLES:
        return _ensemble(inputs, steps, progress)
    if base(name) in INFLUENCE or name == "dot":
        return influence_task_scores(loaded, parse(name), targets, steps, progress)
    if name == "tracin":
        return tracin_task_scores(loaded, inputs.trajectory(), targets, progress)
    if name.startswith("trak-"):
        return TaskScores(_trak(inputs, progress))
    if name == "ekfac":
        from core.baselines.ekfac import ekfac_scores

        scores = ekfac_scores(loaded.images, loaded.tasks, targets, epochs=POOLED_EPOCHS, seed=_BASELINE_SEED)
        return TaskScores(scores, note=f"its own classifier, {POOLED_EPOCHS} epochs")
    if name == "self-confidence":
        return TaskScores(inputs.constant(_self_confidence(loaded)))
    return TaskScores(difficulty_scores(name, inputs, progress))


def difficulty_scores(name: str, inputs: ScoringInputs, progress: Progress) -> np.ndarray:
    """Score ``(N, T)`` by ``loss``, ``entropy`` or ``margin`` of the adapted model: difficult tasks are harmful."""
    progress.stage(f"{name} of the tasks", len(inputs.loaded.train))
    value = getattr(task_difficulty(inputs.loaded, progress), name)
    return inputs.constant(value if name == "margin" else -value)


def combined_scores(scores: np.ndarray, loss_scores: np.ndarray) -> np.ndarray:
    """Add two kinds of scores ``(N, T)``, each in standard deviations per target."""
    return _standardized(scores) + _standardized(loss_scores)


def _ensemble(inputs: ScoringInputs, steps: StepWriter, progress: Progress) -> TaskScores:
    """Average influence over the given models, or without any over the later half of the training's snapshots."""
    models = inputs.models
    if not models:
        trajectory = inputs.trajectory()
        models = [snapshot.params for snapshot in trajectory[len(trajectory) // 2 :]]
    estimator = parse(_ENSEMBLE_METHOD)
    results = [
        influence_task_scores(inputs.loaded.with_params(params), estimator, inputs.targets, steps, progress)
        for params in models
    ]
    scores = np.mean([result.scores for result in results], 0)
    worst = max(result.residual or 0.0 for result in results)
    return TaskScores(scores, worst, f"averaged over {len(results)} models")


def _trak(inputs: ScoringInputs, progress: Progress) -> np.ndarray:
    from core.baselines.trak import trak_scores

    loaded, models = inputs.loaded, inputs.models or [inputs.loaded.params]
    train, heldout = loaded.train, loaded.episodes(inputs.targets)
    progress.stage("TRAK", len(models) * (len(train) + len(heldout)))
    return trak_scores(
        loaded.model, models, train, heldout, dimension=TRAK_DIMENSION, seed=_BASELINE_SEED, on_step=progress.advance
    )


def _self_confidence(loaded: Loaded) -> np.ndarray:
    """Return the mean log-probability of the given labels per task, ``(N,)``."""
    from core.baselines.confidence import self_confidence

    table = self_confidence(loaded.images, loaded.tasks, epochs=POOLED_EPOCHS, seed=_BASELINE_SEED)
    confidence = table.set_index(["image_id", "class"])["self_confidence"]
    rows = loaded.tasks.rows
    of_rows = confidence.loc[list(zip(rows["image_id"], rows["class"], strict=True))].to_numpy()
    log_confidence = np.log(of_rows.clip(_SMALLEST_CONFIDENCE))
    return pd.Series(log_confidence).groupby(rows["task_id"].to_numpy(), sort=False).mean().to_numpy()


def _standardized(values: np.ndarray) -> np.ndarray:
    spread = values.std(0)
    return (values - values.mean(0)) / np.where(spread > 0, spread, 1)
