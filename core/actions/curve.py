"""Removal curves: accuracy on held-out tasks against the share of the training data removed.

At every share the most harmful part of a ranking, the part with the highest adapted loss, and random parts of the
same size are removed, the model is fine-tuned on what is left, and measured; with several seeds each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from core.actions.compute import Compute, Loaded
from core.editing.settings import CurveSettings
from core.maml.episodes import get_or_compute
from core.maml.evaluation import evaluate
from core.maml.settings import TrainSettings
from core.maml.training import train
from core.runtime.distributed import world
from core.runtime.files import content_hash
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

KIND = "curve"


@dataclass(frozen=True)
class Point:
    order: str
    share: float
    seed: int


def points(settings: CurveSettings) -> Iterator[Point]:
    """All points, seed by seed, so that a curve cancelled half way has whole seeds; share 0 is measured once a seed."""
    for seed in range(settings.seeds):
        for share in sorted(set(settings.shares)):
            for order in settings.orders if share else ("none",):
                yield Point(order, share, seed)


def curve(
    workspace: Workspace,
    ranking: Run,
    settings: CurveSettings,
    finetune: TrainSettings,
    compute: Compute,
    progress: Progress,
) -> Run:
    """Measure removal curves by ``ranking`` (a run of :func:`core.actions.rank.ranking`).

    The run holds ``points.parquet``: order (``none`` at share 0), share, seed, removed (how many), accuracy and loss
    (means over the held-out tasks).
    """
    project = workspace.project()
    question = {
        **project.hashes,
        "ranking": ranking.id,
        **asdict(settings),
        "finetune": asdict(finetune),
        "dtype": compute.dtype,
    }
    table = ranking.table(f"{settings.by}.parquet")

    def work(run: RunWriter) -> None:
        loaded, memory, todo = Loaded(project, compute), run.memory(), list(points(settings))
        progress.stage("points of the curve", len(todo))

        def measure(point: Point) -> list[np.ndarray]:
            removal = part(table, settings.by, point)
            left = loaded.episodes(cleaned(project.tasks.train, removal))
            params = train(loaded.model, loaded.params, left, replace(finetune, seed=point.seed)).params
            result = evaluate(loaded.model, params, loaded.heldout)
            return [np.array([len(removal), result.accuracy.mean(), result.loss.mean()])]

        def one(point: Point, count: int) -> np.ndarray:
            (figures,) = get_or_compute(memory, content_hash(asdict(point))[:24], lambda: measure(point))
            progress.advance(count, note=f"{point.order} {point.share:.0%}: accuracy {figures[1]:.3f}")
            return figures

        with run.timed("points"):
            measured = world().map_distributed(todo, one)
        rows = [
            {**asdict(point), **dict(zip(("removed", "accuracy", "loss"), figures, strict=True))}
            for point, figures in zip(todo, measured, strict=True)
        ]
        run.write_table("points.parquet", pd.DataFrame(rows))

    return workspace.runs.get_or_compute(KIND, question, work)


def part(table: pd.DataFrame, by: str, point: Point) -> Changes:
    """The part of a score table that a point removes."""
    count = round(point.share * len(table))
    if point.order == "random":
        chosen = np.random.default_rng([7, point.seed]).permutation(len(table))[:count]
    elif point.order == "loss":
        chosen = np.argsort(-table["loss"].to_numpy(), kind="stable")[:count]
    else:
        chosen = np.argsort(table["score"].to_numpy(), kind="stable")[:count]
    ids = frozenset(table["task_id" if by == "tasks" else "image_id"].iloc[chosen])
    return Changes(tasks=ids) if by == "tasks" else Changes(images=ids)
