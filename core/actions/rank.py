"""Rank all training tasks, instances and images by their influence on an evaluation target."""

from __future__ import annotations

from core.actions.compute import Compute, load
from core.actions.evaluate import evaluation
from core.influence.basis import ENGINE_VERSION
from core.influence.gradients import configure_gradient
from core.influence.ranking import influence_ranking, tracin_ranking
from core.influence.self_influence import self_influence_ranking
from core.influence.settings import Estimator
from core.influence.targets import Target
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import RANKING_KIND, Workspace

__all__ = ["ENGINE_VERSION", "KIND", "configure_gradient", "ranking"]

KIND = RANKING_KIND


def ranking(workspace: Workspace, target: Target, estimator: Estimator, compute: Compute, progress: Progress) -> Run:
    """Score against ``target``: positive = helpful, in nats that removing an item would add to the target's loss.

    The run holds ``instances.parquet``, ``tasks.parquet``, ``images.parquet`` (:mod:`core.influence.scores`) and
    ``solver.json`` (:attr:`core.influence.ranking.Ranking.report`, the method, the target, and the stationarity of the
    model). ``tracin`` has no solve, ``self-influence`` no target; its scores are minus the self-influence, so that
    the most suspicious items come first, as everywhere.

    Raises:
        UserError: the target is not held out, the method does not fit the model, or the scores rank nothing.
    """
    project = workspace.project()
    target.weighted(project.tasks.heldout)  # check the target before anything long begins
    question = {
        **project.hashes,
        "engine": ENGINE_VERSION,
        "target": "" if estimator.name == "self-influence" else str(target),
        **estimator.cache_key(),
        "dtype": compute.dtype,
    }
    trajectory = workspace.trajectory() if estimator.name == "tracin" else []

    def work(run: RunWriter) -> None:
        summary = evaluation(workspace, compute, progress).json("summary.json")
        loaded = load(project, compute)
        if estimator.name == "self-influence":
            result = self_influence_ranking(loaded, estimator, run, progress, workspace.runs)
        elif estimator.name == "tracin":
            result = tracin_ranking(loaded, target, trajectory, run, progress)
        else:
            result = influence_ranking(loaded, target, estimator, run, progress, workspace.runs)
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

    return workspace.runs.get_or_compute(KIND, question, work)
