"""The candidate scores: how suspicious every task, image and row is. For all of them, larger is more suspicious.

=============== ============================================================================================
scoring_loss    cross-entropy of the given class in scoring tasks (:mod:`core.review.scoring`), which are drawn anew;
                of a task, the mean over its rows
loss            adapted loss in the item's own tasks, as rankings show it (:mod:`core.influence.scores`)
suspected       tasks only: share of the rows for which scoring tasks prefer another class than the given one
self_influence  how much removing the item raises its own loss (:mod:`core.influence.self_influence`)
harm            minus the influence on the mean loss of all held-out tasks
=============== ============================================================================================

The directions that influence is computed along are those of the model and its training tasks, for the copies too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.influence.curvature import task_gradients
from core.influence.methods import DEFAULT, METHODS, estimator
from core.influence.scores import image_table, instance_table
from core.influence.self_influence import directions, squared_sums
from core.influence.solve import Solver
from core.influence.solvers import SolveError
from core.influence.targets import target_gradient
from core.maml.evaluation import evaluate
from core.maml.loaded import Loaded
from core.maml.storage import StepWriter
from core.review.image_labels import image_label_pairs
from core.review.member_scores import timed
from core.review.scoring import score_pairs, task_shape, tasks_per_round
from core.runtime.progress import Progress
from core.tasks.tasklist import KEY

SCORES = ("scoring_loss", "loss", "suspected", "self_influence", "harm")
"""In the order in which they are preferred where they find errors equally well: the model was not trained on scoring
tasks, so what it has memorised of noisy tasks does not lower their loss."""
STAGES = {
    "tasks": {
        "scoring_loss": "scoring tasks",
        "loss": "adapted losses",
        "suspected": "scoring tasks",
        "self_influence": "gradients",
        "harm": "gradients",
    },
    "images": {
        "scoring_loss": "scoring tasks",
        "loss": "row scores",
        "self_influence": "self-influence of rows",
        "harm": "row scores",
    },
}
"""By level, the scores and the stage that each takes; scores may share a stage."""
STAGES["instances"] = STAGES["images"]
_SOLVE: dict[str, Any] = {"curvature_tasks": 8, "damping": 0.003, "tolerance": 0.05, "rank": 8}
"""Settings of the solve of influence. On the demos, 16 tasks and a tolerance of 0.01 find noisy tasks equally well, in
three times the time."""
_PROBES = 2
"""Passes of the sketch of self-influence: few, as its errors average out over thousands of rows."""
_TASKS_AT_ONCE = 256
"""Tasks whose gradients are in memory at once."""
Seconds = dict[str, float]


@dataclass(frozen=True, eq=False)
class Directions:
    """What the scores by gradients need of the model.

    Attributes:
        influence: ``(P,)``, the solution of the solve for the held-out loss.
        inverse: The damped inverse curvature of self-influence.
        sketch: ``(probes, P)`` (:func:`core.influence.self_influence.directions`).
        note: A sentence on what had to be replaced; empty if nothing.
    """

    influence: Tensor
    inverse: Callable[[Tensor], Tensor]
    sketch: Tensor
    note: str = ""


def model_directions(loaded: Loaded, steps: StepWriter, progress: Progress, seconds: Seconds) -> Directions:
    """Return the directions of influence on all held-out tasks and of self-influence.

    Where the solve fails, influence is a product of gradients without curvature, and the note says so.
    """
    settings = estimator(DEFAULT, **_SOLVE).solve
    of_self = METHODS["self-influence"].estimator.solve
    assert settings is not None
    assert of_self is not None
    with timed(seconds, "influence solve"):
        progress.stage("target gradient", len(loaded.heldout))
        v, _ = target_gradient(loaded.model, loaded.params, loaded.heldout, progress.advance)
        solver, note = Solver(loaded, loaded.model, settings, steps, progress), ""
        basis = solver.basis()
        try:
            u = solver.solve(v).x
        except SolveError as error:
            u, note = v, f"Influence is measured without curvature, because its solve failed. {error}"
    shift = loaded.model.delta + of_self.damping * max(solver.largest, 0.0)
    return Directions(u, basis.inverse(shift), directions(basis, shift, 0, _PROBES, of_self.seed), note)


def scoring_rows(loaded: Loaded, rounds: int, seed: int, progress: Progress, seconds: Seconds) -> pd.DataFrame:
    """Return the rows of positive weight of the training tasks, scored in scoring tasks.

    Returns:
        task_id, role, image_id, class, scoring_loss, is_suspected, is_main (whether most rows of the image have this
        class); in the order of the task table.

    Raises:
        UserError: fewer classes with two images than classes per task.
    """
    pairs, shape = image_label_pairs(loaded.tasks, loaded.images), task_shape(loaded.tasks)
    progress.stage("scoring tasks", rounds * tasks_per_round(pairs, shape))
    with timed(seconds, "scoring tasks"):
        loss, negative_margin = score_pairs(
            loaded.model,
            loaded.params,
            pairs,
            shape,
            loaded.episodes,
            loaded.images.ids,
            rounds=rounds,
            seed=seed,
            on_chunk=progress.advance,
        )
    in_use = pairs.of_row >= 0
    pair = pairs.of_row[in_use]
    return loaded.tasks.rows.loc[in_use, [*KEY, "class"]].assign(
        scoring_loss=loss[pair], is_suspected=negative_margin[pair] > 0, is_main=pairs.is_main[pair]
    )


def task_scores(
    loaded: Loaded, scoring: pd.DataFrame, along: Directions, progress: Progress, seconds: Seconds
) -> pd.DataFrame:
    """Return task_id and one column per score, in the order of the training tasks; ``scoring`` are their rows."""
    by_task = scoring.groupby("task_id", sort=False)[["scoring_loss", "is_suspected"]].mean()
    by_task = by_task.reindex(loaded.tasks.task_ids)
    progress.stage("adapted losses", len(loaded.train))
    with timed(seconds, "adapted losses"):
        loss = evaluate(loaded.model, loaded.params, loaded.train, progress.advance).loss
    with timed(seconds, "gradients"):
        self_influence, influence = _products_of_tasks(loaded, along, progress)
    columns = {
        "task_id": loaded.tasks.task_ids,
        "scoring_loss": by_task["scoring_loss"].to_numpy(),
        "loss": loss,
        "suspected": by_task["is_suspected"].to_numpy(float),
        "self_influence": self_influence,
        "harm": -influence,
    }
    return _filled(pd.DataFrame(columns))


def _products_of_tasks(loaded: Loaded, along: Directions, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Return self-influence and influence ``(N,)`` of the training tasks."""
    progress.stage("gradients of the tasks", len(loaded.train))
    parts = []
    for positions in np.array_split(np.arange(len(loaded.train)), -(-len(loaded.train) // _TASKS_AT_ONCE)):
        g = task_gradients(loaded.model, loaded.params, loaded.train, positions, progress.advance)
        parts.append(torch.stack([(g * along.inverse(g)).sum(1), g @ along.influence]))
    of_self, influence = torch.cat(parts, 1).double().cpu().numpy()
    return of_self, influence


def row_scores(
    loaded: Loaded, scoring: pd.DataFrame, along: Directions, steps: StepWriter, progress: Progress, seconds: Seconds
) -> dict[str, pd.DataFrame]:
    """Return the scores of the images and of the rows of the training tasks, without self-influence.

    Args:
        scoring: The same rows (:func:`scoring_rows`).

    Returns:
        ``images``: image_id, class (given most often) and one column per score; ``instances``: task_id, role,
        image_id, class and one column per score.
    """
    with timed(seconds, "row scores"):
        rows = _rows_along(loaded, along.influence, "row scores", steps, progress)
    by_image = image_table(rows).set_index("image_id")
    images = scoring.loc[scoring["is_main"], ["image_id", "class", "scoring_loss"]].drop_duplicates("image_id")
    of_images = by_image.loc[images["image_id"]]
    images = images.assign(loss=of_images["loss"].to_numpy(), harm=-of_images["score"].to_numpy())
    instances = scoring[[*KEY, "class", "scoring_loss"]]
    instances = instances.assign(loss=rows["loss"].to_numpy(), harm=-rows["score"].to_numpy())
    tables = {"images": images, "instances": instances}
    return {level: _filled(table.reset_index(drop=True)) for level, table in tables.items()}


def with_self_influence(
    loaded: Loaded,
    tables: dict[str, pd.DataFrame],
    along: Directions,
    steps: StepWriter,
    progress: Progress,
    seconds: Seconds,
) -> dict[str, pd.DataFrame]:
    """Return the tables of :func:`row_scores` with the self-influence of images and rows."""
    with timed(seconds, "self-influence of rows"):
        passes = [_rows_along(loaded, one, "self-influence of rows", steps, progress) for one in along.sketch]
    products = np.stack([rows["score"].to_numpy() for rows in passes])
    of_images = squared_sums(products, passes[0], "image_id", np.ones(products.shape[1]))
    images, instances = tables["images"], tables["instances"]
    return {
        "images": images.assign(self_influence=of_images.loc[images["image_id"]].to_numpy()),
        "instances": instances.assign(self_influence=(products**2).sum(0)),
    }


def _rows_along(loaded: Loaded, direction: Tensor, stage: str, steps: StepWriter, progress: Progress) -> pd.DataFrame:
    """Return the rows of positive weight, scored along a direction (:func:`core.influence.scores.instance_table`)."""
    progress.stage(stage, len(loaded.train))
    table = instance_table(loaded.model, loaded.params, direction, loaded.train, progress.advance, steps.memory())
    return table[table["weight"] > 0]


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose missing scores, such as of tasks without rows of positive weight, are the median."""
    scores = [name for name in SCORES if name in table]
    return table.assign(**table[scores].fillna(table[scores].median()).fillna(0.0))
