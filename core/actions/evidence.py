"""Can the rankings be trusted? Every method's predictions held against retraining, under one harness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from core.actions.compute import Compute, Loaded, load
from core.actions.rank import ENGINE_VERSION
from core.actions.retraining import retrained_params, retraining
from core.checkpoints.model import Model
from core.editing.measured_cost import measure_pace
from core.editing.retraining import RetrainSettings
from core.evidence.lds import ceiling, lds, predicted_losses
from core.evidence.method_scores import MethodScores, method_scores
from core.evidence.methods import ALL_METHODS, DEFAULT_METHODS, ENSEMBLE_SIZES, check, kind, missing, words
from core.evidence.subsets import subsets
from core.maml.backbone import Params
from core.maml.cost import seconds_of, training_passes
from core.runtime.distributed import world
from core.runtime.errors import TransientError, UserError
from core.runtime.progress import Progress, SubProgress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

KIND = "evidence"
_UNITS = 100  # of progress, a retraining


@dataclass(frozen=True)
class EvidenceSettings:
    """What is held against what.

    Attributes:
        methods: Names of :data:`core.evidence.methods.ALL_METHODS`, with parts chosen otherwise as in
            :func:`core.influence.methods.parse`.
        truth: ``half`` (LDS) or ``one`` (leave one task out).
        subsets, seeds: Retrainings are their product; with 2 seeds or more the ceiling is known.
        retrain, iterations: :class:`core.editing.retraining.RetrainSettings`.
        targets: Held-out tasks that are targets, the first ones; 0 means all.
        seed: Draws the subsets.
    """

    methods: tuple[str, ...] = DEFAULT_METHODS
    truth: str = "half"
    subsets: int = 20
    seeds: int = 2
    retrain: str = "fresh"
    iterations: int = 0
    targets: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.methods:
            check(name)
        if not self.methods:
            raise UserError("There is no method to rate.", f"Known: {', '.join(ALL_METHODS)}.")
        if self.seeds < 1 or self.targets < 0:
            raise UserError("Evidence needs a seed and no fewer than 0 targets.")
        RetrainSettings(self.retrain, self.iterations)
        if self.subsets < 3:
            raise UserError("A correlation needs 3 subsets at least.", "Use 20 or more.")

    @property
    def how(self) -> RetrainSettings:
        return RetrainSettings(self.retrain, self.iterations)

    @property
    def members(self) -> int:
        """Models on all tasks that the methods need beside the one at hand."""
        return max((ENSEMBLE_SIZES.get(name, 0) for name in self.methods), default=0)


def predicted_seconds(workspace: Workspace, settings: EvidenceSettings) -> float:
    """Predict the seconds of all retrainings on this machine, including those that are finished already."""
    project = workspace.project()
    loaded, training = load(project, Compute()), settings.how.settings(project.model, 0)
    tasks = len(loaded.train)
    subset = tasks // 2 if settings.truth == "half" else tasks
    sweep, full = (training_passes(training, count) for count in (subset, tasks))
    pace = measure_pace(loaded)
    return seconds_of(sweep, pace) * settings.subsets * settings.seeds + seconds_of(full, pace) * settings.members


def evidence(workspace: Workspace, settings: EvidenceSettings, compute: Compute, progress: Progress) -> Run:
    """RetrainSettings, score, and compare.

    The run holds ``methods.parquet`` (method, words, kind, lds, lds_low, lds_high: mean over targets of Spearman's
    correlation over subsets, with its 95 % bootstrap interval; lds_mean, ...: of the targets' mean loss; auc of the
    planted noisy tasks, seconds, memory_gb, residual, note; a row of kind ``ceiling``; a method that could not run
    has a note that says why and no figures), ``measured.parquet`` (subset, seed, target, loss), ``predicted.parquet``
    (method, subset, target, predicted, up to a constant a target) and ``evidence.json``.
    """
    project = workspace.project()
    question = {**project.hashes, "engine": ENGINE_VERSION, **asdict(settings), "dtype": compute.dtype}
    if without := missing(settings.methods):  # once they are installed, it is another question
        question["without"] = without

    def work(run: RunWriter) -> None:
        loaded = Loaded(project, compute)
        targets = np.arange(len(loaded.heldout))[: settings.targets or None]
        kept = subsets(settings.truth, len(loaded.train), settings.subsets, settings.seed)
        swept, members = _retrained(workspace, project.model, loaded, kept, settings, progress)
        measured = np.stack(
            [[one.table("heldout.parquet")["loss"].to_numpy()[targets] for one in seeds] for seeds in swept]
        )
        spread = measured.mean(1)
        predicted: dict[str, np.ndarray] = {}
        rows: list[dict[str, Any]] = []
        for name in settings.methods:
            try:
                found = method_scores(workspace, loaded, name, targets, members, compute, progress)
            except TransientError:
                raise
            except UserError as error:  # one method that cannot run here must not cost the others
                rows.append(_failed_row(name, error))
                continue
            predicted[name] = predicted_losses(found.scores, kept)
            rows.append(_row(name, found, predicted[name], spread, project.tasks.planted, loaded))
        if not predicted:
            raise UserError("No method could run here.", "; ".join(f"{row['method']}: {row['note']}" for row in rows))
        reports = [one.json("retraining.json") for seeds in swept for one in seeds]
        rows.append(_ceiling_row(measured, sum(report["seconds"] for report in reports)))
        ids = [project.tasks.heldout.task_ids[i] for i in targets]
        run.write_table("methods.parquet", pd.DataFrame(rows))
        run.write_table("measured.parquet", _long(measured, ("subset", "seed", "target"), "loss", ids))
        tables = [
            _long(value, ("subset", "target"), "predicted", ids).assign(method=name)
            for name, value in predicted.items()
        ]
        run.write_table("predicted.parquet", pd.concat(tables, ignore_index=True))
        run.write_json(
            "evidence.json",
            {
                **asdict(settings),
                "targets": ids,
                "iterations": settings.how.settings(project.model, 0).iterations,
                "ratio": float(np.mean([report["stationarity"]["ratio"] for report in reports])),
                "accuracy": float(np.mean([report["accuracy"]["mean"] for report in reports])),
                "loss_spread": float(spread.std(0).mean()),
                "device": str(loaded.device),
                "dtype": compute.dtype,
            },
        )

    return workspace.runs.get_or_compute(KIND, question, work)


def _retrained(
    workspace: Workspace,
    model: Model,
    loaded: Loaded,
    kept: np.ndarray,
    settings: EvidenceSettings,
    progress: Progress,
) -> tuple[list[list[Run]], Callable[[int], list[Params]]]:
    """Retrainings by subset and seed, and the first models on all tasks; each is done by one process."""
    train = loaded.project.tasks.train
    ids = np.array(train.task_ids, dtype=object)
    jobs = [(mask.tobytes(), settings.how, seed) for mask in kept for seed in range(settings.seeds)]
    swept = len(jobs)
    # Members must differ: they are trained from seeds of their own, whatever the sweep starts from.
    fresh = replace(settings.how, start="fresh", iterations=settings.iterations if settings.retrain == "fresh" else 0)
    jobs += [(np.ones(len(ids), dtype=bool).tobytes(), fresh, seed + 1) for seed in range(settings.members)]
    todo = list(dict.fromkeys(jobs))  # of a short list, the same half may be drawn twice
    progress.stage("retraining", _UNITS * len(todo))

    def one(job: tuple[bytes, RetrainSettings, int], count: int) -> str:
        mask, how, seed = job
        inner = SubProgress(progress, _UNITS * count)
        tasks = train.select(ids[np.frombuffer(mask, dtype=bool)].tolist())
        done = retraining(workspace, model, loaded, tasks, how, seed, inner)
        inner.finish(f"held-out loss {done.json('retraining.json')['loss']['mean']:.3f}")
        return done.id

    made = dict(zip(todo, workspace.runs.collect_distributed(world().map_distributed(todo, one)), strict=True))
    runs = [made[job] for job in jobs]
    by_subset = [runs[first : first + settings.seeds] for first in range(0, swept, settings.seeds)]
    return by_subset, lambda count: [retrained_params(run, loaded) for run in runs[swept:][:count]]


def _row(
    name: str,
    found: MethodScores,
    predicted: np.ndarray,
    measured: np.ndarray,
    planted: pd.DataFrame | None,
    loaded: Loaded,
) -> dict[str, Any]:
    score, mean = lds(predicted, measured), lds(predicted.mean(1)[:, None], measured.mean(1)[:, None])
    return {
        "method": name,
        "words": words(name),
        "kind": kind(name),
        **_interval("lds", score),
        **_interval("lds_mean", mean),
        "auc": _auc(found.scores, planted, loaded),
        "seconds": found.seconds,
        "memory_gb": found.memory_gb,
        "residual": found.residual,
        "note": found.note,
    }


def _failed_row(name: str, error: UserError) -> dict[str, Any]:
    blank = dict.fromkeys(("auc", "seconds", "memory_gb", "residual"), float("nan"))
    intervals = _interval("lds", None) | _interval("lds_mean", None)
    return {"method": name, "words": words(name), "kind": kind(name), **intervals, **blank, "note": str(error)}


def _ceiling_row(measured: np.ndarray, seconds: float) -> dict[str, Any]:
    one, mean = ceiling(measured), ceiling(measured.mean(2)[..., None])
    return {
        "method": "ceiling",
        "words": "how well independent retrainings of the same subsets agree",
        "kind": "ceiling",
        **_interval("lds", one),
        **_interval("lds_mean", mean),
        "auc": np.nan,
        "seconds": seconds,
        "memory_gb": np.nan,
        "residual": np.nan,
        "note": "" if one else "one seed only: not known",
    }


def _interval(name: str, score: Any) -> dict[str, float]:
    nan = float("nan")
    mean, low, high = (score.mean, score.low, score.high) if score else (nan, nan, nan)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _auc(scores: np.ndarray, planted: pd.DataFrame | None, loaded: Loaded) -> float:
    """Of the tasks that noise was planted in, most harmful first."""
    if planted is None or "task_id" not in planted.columns:
        return float("nan")
    bad = np.isin(loaded.project.tasks.train.task_ids, planted["task_id"].unique())
    return float(roc_auc_score(bad, -scores.mean(1))) if 0 < bad.sum() < len(bad) else float("nan")


def _long(values: np.ndarray, axes: tuple[str, ...], name: str, targets: list[str]) -> pd.DataFrame:
    """An array as a table, one row a cell; the last axis is that of the targets."""
    index = np.indices(values.shape).reshape(values.ndim, -1)
    table = pd.DataFrame(dict(zip(axes, index, strict=True)))
    return table.assign(target=np.array(targets, dtype=object)[index[-1]], **{name: values.reshape(-1)})
