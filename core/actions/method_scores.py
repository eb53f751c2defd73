"""Score every training task for every target by any method; each is a run, shared by all evidence."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from core.actions.compute import Compute
from core.actions.rank import ranking
from core.evidence.method_scores import ScoringInputs, combined_scores, compute_scores, difficulty_scores
from core.evidence.methods import ENSEMBLE_SIZES, base
from core.evidence.tables import MethodScores
from core.influence.basis import ENGINE_VERSION
from core.influence.methods import METHODS, parse
from core.influence.scores import check_scores
from core.influence.targets import Target
from core.influence.task_scores import TaskScores
from core.maml.backbone import Params
from core.maml.loaded import Loaded
from core.runtime.files import content_hash
from core.runtime.memory import peak_memory
from core.runtime.progress import Progress
from core.workspace.runs import RunWriter
from core.workspace.workspace import Workspace

KIND = "scores"
Members = Callable[[int], list[Params]]
"""A function that returns the first models of an ensemble trained on all tasks from separate seeds."""


def method_scores(
    workspace: Workspace,
    loaded: Loaded,
    name: str,
    targets: np.ndarray,
    members: Members,
    compute: Compute,
    progress: Progress,
) -> MethodScores:
    """Score all training tasks for the held-out tasks at ``targets`` by the method ``name``.

    The run holds ``scores.parquet`` (one column per target) and ``scores.json`` (:class:`MethodScores`).

    Raises:
        UserError: the method cannot run, or its scores cannot rank.
    """
    models = members(ENSEMBLE_SIZES.get(name, 0))
    key = {
        **loaded.hashes,
        "engine": ENGINE_VERSION,
        "method": name,
        "targets": targets.tolist(),
        "members": [content_hash(*(value.cpu().numpy() for value in params.values())) for params in models],
        "dtype": loaded.compute.dtype,
    }
    key |= parse(name).cache_key() if base(name) in METHODS else {}
    ids = [loaded.heldout_tasks.task_ids[position] for position in targets]
    inputs = ScoringInputs(loaded, loaded.heldout_tasks.select(ids), models, workspace.trajectory)

    def stored_scores(run: RunWriter) -> tuple[TaskScores, float]:
        """Return the scores, and the seconds of a run that they are read from and that may have existed before."""
        if name == "task-if+loss":
            influence = method_scores(workspace, loaded, "task-if", targets, lambda _: [], compute, progress)
            scores = combined_scores(influence.scores, difficulty_scores("loss", inputs, progress))
            return TaskScores(scores, influence.residual), influence.seconds
        if name == "self-influence":
            ranked = ranking(workspace, Target(), METHODS[name].estimator, compute, progress)
            scores = inputs.constant(ranked.table("tasks.parquet")["score"].to_numpy())
            seconds = sum(ranked.json("provenance.json")["seconds"].values())
            return TaskScores(scores, ranked.json("solver.json")["residual"]), seconds
        return compute_scores(name, inputs, run, progress), 0.0

    def work(run: RunWriter) -> None:
        start = time.perf_counter()
        with peak_memory() as peak:
            result, earlier_seconds = stored_scores(run)
        check_scores(result.scores)
        run.write_table("scores.parquet", pd.DataFrame(result.scores, columns=ids))
        seconds = max(time.perf_counter() - start, earlier_seconds)
        figures = {"seconds": seconds, "memory_gb": peak.gb, "residual": result.residual, "note": result.note}
        run.write_json("scores.json", figures)

    run = workspace.runs.get_or_compute(KIND, key, work)
    figures = run.json("scores.json")
    return MethodScores(
        run.table("scores.parquet").to_numpy(),
        figures["seconds"],
        run.processor_seconds,
        figures["memory_gb"],
        float("nan") if figures["residual"] is None else figures["residual"],
        figures["note"],
    )
