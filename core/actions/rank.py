"""Rank all training tasks, instances and images by their influence on an evaluation target."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from core.actions.compute import Compute, load
from core.actions.evaluate import evaluation
from core.evidence.detection import detection
from core.influence.basis import ENGINE_VERSION
from core.influence.ranking import Ranking, influence_ranking, tracin_ranking
from core.influence.self_influence import self_influence_ranking
from core.influence.settings import SELF_INFLUENCE, Estimator
from core.influence.targets import Target
from core.maml.loaded import Loaded
from core.maml.storage import ResultStore, StepWriter
from core.maml.training import Snapshot
from core.recommendation.summary import LEVELS
from core.runtime.progress import Progress
from core.tasks.tasklist import KEY
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import RANKING_KIND, Workspace


def scores(
    loaded: Loaded,
    target: Target,
    estimator: Estimator,
    steps: StepWriter,
    progress: Progress,
    store: ResultStore | None = None,
    trajectory: Sequence[Snapshot] = (),
) -> Ranking:
    """Score the training data as :func:`ranking` does, without storing the scores; ``tracin`` needs a trajectory."""
    if estimator.name == SELF_INFLUENCE:
        return self_influence_ranking(loaded, estimator, steps, progress, store)
    if estimator.name == "tracin":
        return tracin_ranking(loaded, target, trajectory, steps, progress)
    return influence_ranking(loaded, target, estimator, steps, progress, store)


def ranking(workspace: Workspace, target: Target, estimator: Estimator, compute: Compute, progress: Progress) -> Run:
    """Score against ``target``: positive = helpful, in nats that removing an item would add to the target's loss.

    The run holds ``instances.parquet``, ``tasks.parquet``, ``images.parquet`` (:mod:`core.influence.scores`) and
    ``solver.json`` (:attr:`core.influence.ranking.Ranking.report`, the method, the target, and the stationarity of the
    model). ``tracin`` has no solve, ``self-influence`` no target; its scores are minus the self-influence, so that
    the most suspicious items come first.

    Raises:
        UserError: the target is not held out, the method does not fit the model, or the scores rank nothing.
    """
    project = workspace.project()
    target.weighted(project.tasks.heldout)  # check the target before anything long begins
    key = {
        **project.hashes,
        "engine": ENGINE_VERSION,
        "target": "" if estimator.name == SELF_INFLUENCE else str(target),
        **estimator.cache_key(),
        "dtype": compute.dtype,
    }
    trajectory = workspace.trajectory() if estimator.name == "tracin" else []

    def work(run: RunWriter) -> None:
        summary = evaluation(workspace, compute, progress).json("summary.json")
        loaded = load(project, compute)
        result = scores(loaded, target, estimator, run, progress, workspace.runs, trajectory)
        for name, table in result.tables.items():
            run.write_table(f"{name}.parquet", table)
        report = {
            **result.report,
            "method": estimator.name,
            "words": estimator.description,
            "gradient": estimator.gradient,
            "evaluation": estimator.evaluation,
            "inner": summary.get("inner"),
            "inner_inverse": estimator.inner,
            "target": str(target),
            "stationarity": summary["stationarity"],
        }
        run.write_json("solver.json", report)

    return workspace.runs.get_or_compute(RANKING_KIND, key, work)


def detection_of(workspace: Workspace, run: Run, recommendation: Run | None = None) -> pd.DataFrame | None:
    """Return how well a ranking, and a recommendation, find the injected label noise; None where none was injected."""
    planted = workspace.project().tasks.planted
    if planted is None:
        return None
    tables = {name: run.table(f"{name}.parquet") for name in LEVELS}
    if recommendation is not None:
        keys = {"tasks": ["task_id"], "images": ["image_id"], "instances": KEY}
        tables = {
            name: table.merge(recommendation.table(f"{name}.parquet")[[*keys[name], "suspicion"]], on=keys[name])
            for name, table in tables.items()
        }
    return detection(planted, tables["tasks"], tables["instances"], tables["images"])
