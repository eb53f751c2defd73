"""Measure removal curves: accuracy on held-out tasks against the share of the training data removed."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from core.actions.compute import Compute, load
from core.actions.recommend import shared_recommendation
from core.editing.curves import Point, points, removal_of
from core.editing.methods import finetune
from core.editing.settings import CurveSettings, possible_orders
from core.maml.episodes import get_or_compute
from core.maml.evaluation import evaluate
from core.maml.settings import TrainSettings
from core.runtime.distributed import world
from core.runtime.errors import UserError
from core.runtime.hashing import content_hash
from core.runtime.program import command_line
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

KIND = "curve"


def curve(
    workspace: Workspace,
    ranking: Run,
    settings: CurveSettings,
    finetune_settings: TrainSettings,
    compute: Compute,
    progress: Progress,
) -> Run:
    """Measure removal curves by ``ranking`` (a run of :func:`core.actions.rank.ranking`).

    At every share the most suspicious part by the newest recommendation (if there is one), the most harmful part, the
    part with the highest adapted loss, and a random part are removed, each of the same size, and the model is
    fine-tuned on the rest; with several seeds each. The run holds ``points.parquet``: order (``none`` at share 0),
    share, seed, removed (number of items), accuracy and loss (means over the held-out tasks).

    Raises:
        UserError: the order ``recommended`` is asked for without a recommendation.
    """
    project = workspace.project()
    recommendation = shared_recommendation(workspace, project)
    if not settings.orders:
        settings = replace(settings, orders=possible_orders(recommendation is not None))
    key = {
        **project.hashes,
        "ranking": ranking.id,
        **asdict(settings),
        "finetune": finetune_settings.cache_key(),
        "dtype": compute.dtype,
    }
    table = ranking.table(f"{settings.by}.parquet")
    if "recommended" in settings.orders:
        if recommendation is None:
            fix = f"Run {command_line(['recommend'])} first, or leave out this order."
            raise UserError("The recommended order needs a recommendation.", fix)
        key["recommendation"] = recommendation.id
        name = f"{settings.by[:-1]}_id"
        suspicion = recommendation.table(f"{settings.by}.parquet").set_index(name)["suspicion"]
        table = table.assign(suspicion=table[name].map(suspicion))

    def work(run: RunWriter) -> None:
        loaded, cache, todo = load(project, compute), run.memory(), list(points(settings))
        progress.stage("points of the curve", len(todo))

        def measure(point: Point) -> list[np.ndarray]:
            removal = removal_of(table, settings.by, point)
            edited = finetune(loaded, removal, replace(finetune_settings, seed=point.seed), run, Progress())
            result = evaluate(loaded.model, edited.params, loaded.heldout)
            return [np.array([len(removal), result.accuracy.mean(), result.loss.mean()])]

        def measure_once(point: Point, count: int) -> np.ndarray:
            (figures,) = get_or_compute(cache, content_hash(asdict(point))[:24], lambda: measure(point))
            progress.advance(count, note=f"{point.order} {point.share:.0%}: accuracy {figures[1]:.3f}")
            return figures

        with run.timed("points"):
            measured = world().map_distributed(todo, measure_once)
        rows = pd.DataFrame([asdict(point) for point in todo])
        rows[["removed", "accuracy", "loss"]] = np.array(measured)
        run.write_table("points.parquet", rows)

    return workspace.runs.get_or_compute(KIND, key, work)
