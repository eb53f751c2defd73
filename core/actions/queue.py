"""The review queue: every item that may be wrongly labelled, most suspicious first, and what is known of that order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from core.actions.compute import Compute, Loaded
from core.decisions.queue_decisions import QueueDecisions, QueuePositions
from core.influence.basis import ENGINE_VERSION
from core.review.calibration import Calibration, Copy, calibrate, evidence_by, suspicion, uncalibrated
from core.review.forecast import EVIDENCE, forecast
from core.review.image_labels import ImageLabelPairs, image_label_pairs
from core.review.injected_noise import IMAGE_KINDS, ROW_KINDS, inject_label_noise
from core.review.member_scores import ScoreSettings, ScoreTable, Source, features_of, score_labels
from core.review.settings import QueueSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "queue"
VERSION = 2  # raised whenever the answers change


def newest_queue(workspace: Workspace) -> Run | None:
    """The newest finished queue for the problem as it now is."""
    now = {**workspace.project().hashes, "engine": ENGINE_VERSION, "version": VERSION}
    return next((run for run in workspace.runs.all(KIND) if now.items() <= run.config.items()), None)


def queue(workspace: Workspace, settings: QueueSettings, compute: Compute, progress: Progress) -> Run:
    """Make the queue.

    The run holds ``items.parquet`` (rank, level, task_id, role, image_id, class, suspicion, probability that the label
    is wrong, suggested, suggested_probability, second, occurrences, a column a score
    (:mod:`core.review.member_scores`), and where it was calibrated :data:`core.review.forecast.EVIDENCE`),
    ``map.parquet`` (image_id, x, y), ``features.npy`` (float16, the images of the map), ``summary.json``, and where it
    was calibrated ``candidates.parquet`` and ``curves.parquet`` (:mod:`core.review.calibration`).

    Raises:
        UserError: too few classes or images to compare a label with others.
    """
    project = workspace.project()
    question = {
        **project.hashes,
        "engine": ENGINE_VERSION,
        "version": VERSION,
        **asdict(settings),
        "dtype": compute.dtype,
    }
    return workspace.runs.get_or_compute(
        KIND, question, lambda run: _make(Loaded(project, compute), settings, run, progress)
    )


def _make(loaded: Loaded, settings: QueueSettings, run: RunWriter, progress: Progress) -> None:
    project = loaded.project
    tasks, images = project.tasks.train, project.images
    claims = image_label_pairs(tasks, images)
    if len(claims.classes) < 2:
        raise UserError("The training tasks have one class only.", "Labels can be wrong where there are two or more.")
    by_row = claims.contradict
    clock: dict[str, float] = {}
    with _timed(clock, "features"):
        features = features_of(images, loaded.model, loaded.params, claims, progress)
    source = Source(images, loaded.model, loaded.params, project.tasks.heldout, features, loaded.episodes)
    how = ScoreSettings(settings.slow, settings.rounds, settings.seed)
    with _timed(clock, "scores"):
        rated = score_labels(source, claims, tasks, by_row, how, progress)
    calibration = None
    if settings.calibrate:
        with _timed(clock, "planted labels"):
            calibration = _calibrated(source, claims, rated, project, by_row, how, progress)
    items = _items(claims, rated, project, by_row, calibration)
    run.write_table("items.parquet", items)
    with _timed(clock, "map"):
        flat = PCA(2, svd_solver="randomized", random_state=0).fit_transform(rated.placed)
    run.write_table(
        "map.parquet", pd.DataFrame({"image_id": images.ids[rated.images], "x": flat[:, 0], "y": flat[:, 1]})
    )
    run.write(lambda folder: np.save(folder / "features.npy", rated.placed.astype(np.float16), allow_pickle=False))
    summary: dict[str, Any] = {
        "level": "instance" if by_row else "image",
        "items": len(items),
        "classes": len(claims.classes),
        "calibrated": calibration is not None,
        "ranking": calibration.ranking if calibration else "discriminant and kernel",
        "seconds": clock | {f"scores, {name}": value for name, value in rated.seconds.items()},
    }
    if calibration:
        run.write_table("candidates.parquet", calibration.candidates)
        run.write_table("curves.parquet", calibration.curves)
        summary |= {
            "weights": calibration.weights,
            "classifier": calibration.classifier,
            "planted": calibration.planted,
            "wrong": float(items["probability"].sum()),
        }
    run.write_json("summary.json", summary)


def _calibrated(
    source: Source,
    claims: ImageLabelPairs,
    rated: ScoreTable,
    project: Project,
    by_row: bool,
    how: ScoreSettings,
    progress: Progress,
) -> Calibration:
    log_p = rated.log_p[np.searchsorted(rated.images, claims.image)]
    rng = np.random.default_rng(how.seed)
    group = claims.image[claims.of_row[claims.of_row >= 0]] if by_row else claims.image
    copies = []
    for kind in ROW_KINDS if by_row else IMAGE_KINDS:
        start = time.perf_counter()
        planted = inject_label_noise(project.images, claims, project.tasks.train, log_p, kind, by_row, rng)
        again = score_labels(source, planted.claims, planted.tasks, by_row, how, progress)
        copies.append(Copy(kind, again.scores, planted.wrong, group, time.perf_counter() - start))
    return calibrate(copies, len(claims.classes), how.seed)


def _items(
    claims: ImageLabelPairs, rated: ScoreTable, project: Project, by_row: bool, calibration: Calibration | None
) -> pd.DataFrame:
    rows, images = project.tasks.train.rows, project.images
    of_row = claims.of_row[claims.of_row >= 0]
    claim = of_row if by_row else np.arange(len(claims))
    names = np.array(claims.classes, dtype=object)
    suspicious = (
        suspicion(rated.scores, calibration.ranking, calibration.weights) if calibration else uncalibrated(rated.scores)
    )
    alone = rows[claims.of_row >= 0].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "level": "instance" if by_row else "image",
            "task_id": alone["task_id"] if by_row else "",
            "role": alone["role"] if by_row else "",
            "image_id": images.ids[claims.image[claim]],
            "class": names[claims.label[claim]],
            "suspicion": suspicious,
            **suggestions(rated.log_p[np.searchsorted(rated.images, claims.image[claim])], claims.label[claim], names),
            "occurrences": claims.count[claim],
        }
    )
    table = pd.concat([table, rated.scores.reset_index(drop=True)], axis=1)
    table = table.sort_values("suspicion", ascending=False, kind="stable", ignore_index=True)
    if calibration:
        table[EVIDENCE] = evidence_by(table[calibration.classifier], len(claims.classes))
    told = forecast(table)
    table.insert(6, "probability", told.probability if told else np.nan)
    # A suggestion is right where the label is wrong and the classifiers, the given class set aside, are right.
    if told:
        table["suggested_probability"] *= table["probability"]
    table.insert(0, "rank", np.arange(len(table)))
    return table


def suggestions(log_p: np.ndarray, label: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """The likeliest other class of every item, its probability where the given one is wrong, and the next."""
    others = np.nan_to_num(log_p.astype(np.float64), nan=-1e9)
    others[np.arange(len(label)), label] = -np.inf
    order = np.argsort(-others, 1, kind="stable")
    p = np.exp(others - np.logaddexp.reduce(others, 1, keepdims=True))
    second = order[:, 1] if len(names) > 2 else order[:, 0]
    return {
        "suggested": names[order[:, 0]],
        "suggested_probability": np.take_along_axis(p, order[:, :1], 1)[:, 0],
        "second": names[second],
    }


@contextmanager
def _timed(clock: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    clock[name] = round(time.perf_counter() - start, 2)


def decisions_on(workspace: Workspace, items: pd.DataFrame) -> QueueDecisions:
    """Return which items of a queue were found wrong, found right, or are open."""
    log = workspace.decisions
    return QueuePositions.of_table(items).decisions(log.current(), log.conflicts())


def remaining(workspace: Workspace, run: Run) -> list[str]:
    """Return sentences on how many items are decided and how many label errors are left."""
    items = run.table("items.parquet")
    decisions = decisions_on(workspace, items)
    decided, errors = len(decisions.is_wrong), decisions.errors_found
    lines = [f"{decided:,} of {len(items):,} items decided, {errors:,} of them wrong"]
    expected = forecast(items, decisions.is_wrong)
    if expected is not None:
        left = expected.remaining_errors(errors)
        lines.append(
            f"estimate: {left.estimate:,.0f} wrong labels left [{left.low:,.0f}, {left.high:,.0f}] (90 % interval)"
        )
    return lines


def queue_summary_text(run: Run) -> list[str]:
    """How a queue was made, in sentences."""
    summary = run.json("summary.json")
    kind = "images" if summary["level"] == "image" else "rows of tasks"
    if not summary["calibrated"]:
        return [f"{summary['items']:,} {kind}, ranked by {summary['ranking']}; not calibrated on planted labels"]
    table = run.table("candidates.parquet")
    means = table.groupby("candidate")["average_precision"].mean()
    best = ", ".join(f"{name} {value:.3f}" for name, value in means.sort_values(ascending=False).head(4).items())
    return [
        f"{summary['items']:,} {kind}, ranked by {summary['ranking']}",
        f"average precision on planted labels: {best}",
    ]
