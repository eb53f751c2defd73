"""Measure how far rankings can be trusted: compare every method's predictions with retraining."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from core.actions.compute import Compute, load
from core.actions.rank import ranking
from core.actions.retraining import retrained_params, retraining
from core.checkpoints.model import Model
from core.editing.measured_cost import measure_pace
from core.editing.retraining import RetrainSettings
from core.evidence.detection import noisy_task_auc
from core.evidence.lds import predicted_losses
from core.evidence.method_scores import ScoringInputs, combined_scores, compute_scores, difficulty_scores
from core.evidence.methods import ENSEMBLE_SIZES, base, missing
from core.evidence.settings import EvidenceSettings
from core.evidence.subsets import subset_masks
from core.evidence.tables import MethodScores, ceiling_row, failed_row, long_table, method_row
from core.influence.basis import ENGINE_VERSION
from core.influence.methods import METHODS, parse
from core.influence.scores import check_scores
from core.influence.settings import SELF_INFLUENCE
from core.influence.targets import Target
from core.influence.task_scores import TaskScores
from core.maml.backbone import Params
from core.maml.cost import seconds_of, training_passes
from core.maml.loaded import Loaded
from core.runtime.distributed import world
from core.runtime.errors import TransientError, UserError
from core.runtime.hashing import content_hash
from core.runtime.memory import peak_memory
from core.runtime.progress import Progress, SubProgress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

KIND = "evidence"
_UNITS = 100  # units of progress per retraining
Members = Callable[[int], list[Params]]
"""Returns the first models of an ensemble trained on all tasks from separate seeds."""


def predicted_seconds(workspace: Workspace, settings: EvidenceSettings) -> float:
    """Estimate the seconds of all retrainings on this machine, including those that are already stored."""
    project = workspace.project()
    loaded, training = load(project, Compute()), settings.start.settings(project.model, 0)
    tasks = len(loaded.train)
    subset, pace = tasks // 2 if settings.truth == "half" else tasks, measure_pace(loaded)
    per_subset, per_member = (
        seconds_of(training_passes(training, count, loaded.validation_count), pace) for count in (subset, tasks)
    )
    return per_subset * settings.subsets * settings.seeds + per_member * settings.members


def evidence(workspace: Workspace, settings: EvidenceSettings, compute: Compute, progress: Progress) -> Run:
    """Retrain on subsets, score by every method, and compare.

    The run holds ``methods.parquet`` (method, words, kind, lds, lds_low, lds_high: mean over targets of Spearman's
    correlation over subsets, with its 95 % bootstrap interval; lds_mean, ...: for the targets' mean loss; auc of the
    noisy tasks, seconds, memory_gb, residual, note; a row of kind ``ceiling``; a method that could not run has a note
    with the reason and no figures), ``measured.parquet`` (subset, seed, target, loss), ``predicted.parquet``
    (method, subset, target, predicted, up to a constant per target) and ``evidence.json``.

    Raises:
        UserError: the model cannot be retrained, or no method could run.
    """
    project = workspace.project()
    key = {**project.hashes, "engine": ENGINE_VERSION, **asdict(settings), "dtype": compute.dtype}
    if without := missing(settings.methods):  # the key changes once they are installed
        key["without"] = without

    def work(run: RunWriter) -> None:
        loaded, train = load(project, compute), project.tasks.train
        targets = np.arange(len(loaded.heldout))[: settings.targets or None]
        ids = [project.tasks.heldout.task_ids[position] for position in targets]
        masks = subset_masks(settings.truth, len(train), settings.subsets, settings.seed)
        retrainings, members = _retrained(workspace, project.model, loaded, masks, settings, progress)
        losses = [[one.table("heldout.parquet")["loss"].to_numpy()[targets] for one in seeds] for seeds in retrainings]
        measured = np.array(losses)
        predicted: dict[str, np.ndarray] = {}
        rows: list[dict[str, Any]] = []
        for name in settings.methods:
            try:
                result = method_scores(workspace, loaded, name, targets, members, compute, progress)
            except TransientError:
                raise
            except UserError as error:  # one method that cannot run must not stop the others
                rows.append(failed_row(name, error))
                continue
            predicted[name] = predicted_losses(result.scores, masks)
            auc = noisy_task_auc(result.scores.mean(1), project.tasks.planted, train.task_ids)
            rows.append(method_row(name, result, predicted[name], measured.mean(1), auc))
        if not predicted:
            raise UserError("No method could run.", "; ".join(f"{row['method']}: {row['note']}" for row in rows))
        reports = [one.json("retraining.json") for seeds in retrainings for one in seeds]
        rows.append(ceiling_row(measured, sum(report["seconds"] for report in reports)))
        run.write_table("methods.parquet", pd.DataFrame(rows))
        run.write_table("measured.parquet", long_table(measured, ("subset", "seed", "target"), "loss", ids))
        tables = [
            long_table(value, ("subset", "target"), "predicted", ids).assign(method=name)
            for name, value in predicted.items()
        ]
        run.write_table("predicted.parquet", pd.concat(tables, ignore_index=True))
        figures = {
            **asdict(settings),
            "targets": ids,
            "iterations": settings.start.settings(project.model, 0).iterations,
            "ratio": float(np.mean([report["stationarity"]["ratio"] for report in reports])),
            "accuracy": float(np.mean([report["accuracy"]["mean"] for report in reports])),
            "loss_spread": float(measured.mean(1).std(0).mean()),
            "device": str(loaded.device),
            "dtype": compute.dtype,
        }
        run.write_json("evidence.json", figures)

    return workspace.runs.get_or_compute(KIND, key, work)


def _retrained(
    workspace: Workspace,
    model: Model,
    loaded: Loaded,
    masks: np.ndarray,
    settings: EvidenceSettings,
    progress: Progress,
) -> tuple[list[list[Run]], Members]:
    """Return the retrainings by subset and seed, and the first ensemble members; each is done by one process."""
    ids = np.array(loaded.tasks.task_ids, dtype=object)
    jobs = [(tuple(ids[mask]), settings.start, seed) for mask in masks for seed in range(settings.seeds)]
    on_subsets = len(jobs)
    # Members must differ: they are trained from separate seeds, wherever the retrainings of the subsets start.
    iterations = settings.iterations if settings.retrain == "fresh" else 0
    fresh = replace(settings.start, start="fresh", iterations=iterations)
    jobs += [(tuple(ids), fresh, seed + 1) for seed in range(settings.members)]
    distinct = list(dict.fromkeys(jobs))  # of a short list, the same half may be drawn twice
    progress.stage("retraining", _UNITS * len(distinct))

    def run_job(job: tuple[tuple[str, ...], RetrainSettings, int], count: int) -> str:
        chosen, start, seed = job
        inner = SubProgress(progress, _UNITS * count)
        run = retraining(workspace, model, loaded, loaded.tasks.select(list(chosen)), start, seed, inner)
        note = f"held-out loss {run.json('retraining.json')['loss']['mean']:.3f}"
        inner.finish(note, is_cached=not inner.has_begun)
        return run.id

    finished = workspace.runs.collect_distributed(world().map_distributed(distinct, run_job))
    by_job = dict(zip(distinct, finished, strict=True))
    runs = [by_job[job] for job in jobs]
    by_subset = [runs[first : first + settings.seeds] for first in range(0, on_subsets, settings.seeds)]
    return by_subset, lambda count: [retrained_params(run, loaded) for run in runs[on_subsets:][:count]]


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
        if name == SELF_INFLUENCE:
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

    run = workspace.runs.get_or_compute("scores", key, work)
    figures = run.json("scores.json")
    return MethodScores(
        run.table("scores.parquet").to_numpy(),
        figures["seconds"],
        run.processor_seconds,
        figures["memory_gb"],
        float("nan") if figures["residual"] is None else figures["residual"],
        figures["note"],
    )
