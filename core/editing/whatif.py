"""What-if estimates in milliseconds: the effect of removals and relabels, and scores for any target.

A :class:`WhatIfEstimator` sums stored gradients (:mod:`core.editing.prepared`), solves by a small matrix product, and
evaluates the held-out tasks once. Its results are those of the linear edit with the same settings: **estimates** of
what retraining would give, with the residual of the solve.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from cachetools import LRUCache, cachedmethod
from torch import Tensor

from core.editing.linear import RowChange, changed_gradients, chunk_gradients, row_change
from core.editing.prepared import HELDOUT, ROWS, TASKS, PreparedFiles, row_ends, single_task_episodes
from core.influence.basis import read_basis
from core.influence.curvature import task_gradients
from core.influence.scores import instance_table
from core.influence.solvers import sketched_residual
from core.influence.targets import Target, target_gradient
from core.maml.episodes import Chunk
from core.maml.evaluation import Evaluation, Interval, evaluate
from core.maml.loaded import Loaded
from core.maml.passes import passes_of
from core.maml.vectors import flatten, unflatten
from core.tasks.changes import Changes, check_tasks_remain

CACHED_ESTIMATES, CACHED_TARGETS = 64, 16
CACHED_GRADIENT_BYTES = 2.5e8  # for gradients of single tasks that no file holds
_READ_ROWS = 1024  # rows of a gradient file read at once


class ClassChange(NamedTuple):
    """The accuracy on one class's held-out query rows, before and after."""

    name: str
    rows: int
    before: float
    after: float


class TaskChange(NamedTuple):
    """The accuracy of one held-out task, before and after, and the change of its loss, in nats."""

    task_id: str
    before: float
    after: float
    loss_change: float


@dataclass(frozen=True)
class TargetChange:
    """The estimated effect of a set of changes on one target: its loss in nats before, after, and to first order.

    The probabilities are the same for the true class where the target is one query image, else None.
    """

    loss: float
    loss_after: float
    loss_predicted: float
    probability: float | None
    probability_after: float | None
    probability_predicted: float | None


@dataclass(frozen=True)
class WhatIf:
    """The estimated effect of a set of changes.

    Attributes:
        removed, relabelled: Numbers of items by kind.
        accuracy: Held-out accuracy of the edited model.
        accuracy_change, loss_change: Difference to the unedited model, paired by held-out task; loss in nats. The
            intervals are over held-out tasks and do not include the error of the estimate.
        tasks: The one whose loss falls most first.
        predicted_loss_change: Change of the held-out loss to first order.
        residual: Relative residual of the solve, itself known to about an eighth.
        relative_step: Norm of the step over that of the parameters.
    """

    removed: dict[str, int]
    relabelled: dict[str, int]
    accuracy: Interval
    accuracy_change: Interval
    loss_change: Interval
    classes: tuple[ClassChange, ...]
    tasks: tuple[TaskChange, ...]
    predicted_loss_change: float
    residual: float
    relative_step: float
    seconds: float
    target: TargetChange | None = None

    @property
    def better(self) -> int:
        """Return the number of held-out tasks whose estimated accuracy rises."""
        return sum(task.after > task.before for task in self.tasks)

    @property
    def worse(self) -> int:
        """Return the number of held-out tasks whose estimated accuracy falls."""
        return sum(task.after < task.before for task in self.tasks)


@dataclass(frozen=True)
class TargetScores:
    """Estimated scores for a target: positive is helpful, negative harmful.

    Attributes:
        table: The most harmful first. For tasks: task_id and score; for images: image_id, class (of its first row),
            score (summed over all its rows), score_support and score_query (its parts) and occurrences.
        residual: Relative residual of the solve.
    """

    table: pd.DataFrame
    residual: float
    seconds: float


class _EditEstimate(NamedTuple):
    effect: WhatIf
    step: Tensor
    after: Evaluation


class _TargetSolution(NamedTuple):
    gradient: Tensor
    u: Tensor
    residual: float


class WhatIfEstimator:
    """An estimator of the effect of changes, safe to use from any thread; UserError if a prepared file is damaged."""

    def __init__(self, loaded: Loaded, prepared: PreparedFiles) -> None:
        self.loaded, self.prepared = loaded, prepared
        self._params = params = flatten(loaded.params)
        size, train = len(params), loaded.train
        self._shift = float(prepared.report["shift"])
        self._basis, self._sketch = read_basis(prepared.basis_folder, params), prepared.sketch(params)
        self._heldout = prepared.gradients(HELDOUT, len(loaded.heldout), size)
        self._tasks = prepared.gradients(TASKS, len(train), size)
        self._rows = prepared.gradients(ROWS, len(loaded.tasks.rows), size)
        self.unedited = self._evaluate(params)  # also warms up what the first estimate needs
        self._mean = self._target_gradient(Target())
        self._episodes, self._ends = single_task_episodes(loaded), row_ends(loaded.tasks)
        self._task_of = np.repeat(np.arange(len(train)), np.diff(self._ends))
        self._query = (loaded.tasks.rows["role"] == "query").to_numpy()
        # All caches are used under the lock.
        self._lock = threading.Lock()
        pieces = max(1, int(CACHED_GRADIENT_BYTES // (size * train.dtype.itemsize)))
        self._pieces: LRUCache[tuple[int, bytes], np.ndarray] = LRUCache(pieces)
        self._last_pieces: dict[tuple[int, bytes], np.ndarray] = {}
        self._estimates: LRUCache[str, _EditEstimate] = LRUCache(CACHED_ESTIMATES)
        self._solutions: LRUCache[Any, _TargetSolution] = LRUCache(CACHED_TARGETS)
        self._images: LRUCache[Any, TargetScores] = LRUCache(CACHED_TARGETS)

    @property
    def report(self) -> dict[str, Any]:
        """Return the report of :func:`core.editing.prepared.prepare_estimates`."""
        return {**self.prepared.report}

    def changes(self, changes: Changes, target: Target | None = None) -> WhatIf:
        """Estimate the effect of ``changes`` on all held-out tasks and on ``target``.

        Raises:
            UserError: there are no changes, something in them is not in the task list, no task would remain, or the
                target is not held out.
        """
        changes.check_not_empty()
        with self._lock:
            estimate = self._estimate(changes)
            if target is None:
                return estimate.effect
            return replace(estimate.effect, target=self._target_change(target, estimate))

    def target(self, target: Target) -> TargetScores:
        """Estimate the scores of all training tasks for ``target``; raise UserError if it is not held out."""
        with self._lock:
            start, loaded = time.perf_counter(), self.loaded
            solution = self._solution(target)
            if self._tasks is None:
                products = task_gradients(loaded.model, loaded.params, loaded.train, directions=solution.u[None])
                scores = products[:, 0].cpu().numpy()
            else:
                scores = self._tasks @ solution.u.cpu().numpy()
            table = pd.DataFrame({"task_id": loaded.tasks.task_ids, "score": scores})
            table = table.sort_values("score", kind="stable", ignore_index=True)
            return TargetScores(table, solution.residual, time.perf_counter() - start)

    def images(self, target: Target) -> TargetScores:
        """Estimate the scores of all training images for ``target``; raise UserError if it is not held out."""
        with self._lock:
            return self._image_scores(target)

    @cachedmethod(lambda self: self._images)
    def _image_scores(self, target: Target) -> TargetScores:
        start, loaded = time.perf_counter(), self.loaded
        solution, rows = self._solution(target), loaded.tasks.rows
        if self._rows is None:
            scores = instance_table(loaded.model, loaded.params, solution.u, loaded.train)["score"].to_numpy()
        else:
            scores = np.asarray(self._rows @ solution.u.cpu().numpy())
        weighted = scores * rows["weight"].to_numpy()
        parts = rows[["image_id", "class"]].assign(
            score=weighted,
            score_support=np.where(self._query, 0.0, weighted),
            score_query=np.where(self._query, weighted, 0.0),
            occurrences=1,
        )
        sums = dict.fromkeys(("score", "score_support", "score_query", "occurrences"), "sum")
        table = parts.groupby("image_id", sort=True).agg({"class": "first", **sums}).reset_index()
        table = table.sort_values("score", kind="stable", ignore_index=True)
        return TargetScores(table, solution.residual, time.perf_counter() - start)

    @cachedmethod(lambda self: self._estimates, key=lambda self, changes: changes.hash)
    def _estimate(self, changes: Changes) -> _EditEstimate:
        start = time.perf_counter()
        step, residual = self.solve(self.change_gradient(changes))
        before, after = self.unedited, self._evaluate(self._params + step)
        effect = WhatIf(
            removed=changes.removed,
            relabelled=changes.relabelled,
            accuracy=after.mean_accuracy,
            accuracy_change=Interval.of(after.accuracy - before.accuracy),
            loss_change=Interval.of(after.loss - before.loss),
            classes=_class_changes(before, after),
            tasks=_task_changes(self.loaded.heldout_tasks.task_ids, before, after),
            predicted_loss_change=float(self._mean @ step),
            residual=residual,
            relative_step=float(step.norm() / self._params.norm()),
            seconds=time.perf_counter() - start,
        )
        return _EditEstimate(effect, step, after)

    def _target_change(self, target: Target, estimate: _EditEstimate) -> TargetChange:
        task_ids = self.loaded.heldout_tasks.task_ids
        loss, after = (_target_loss(target, one, task_ids) for one in (self.unedited, estimate.after))
        predicted = loss + float(self._solution(target).gradient @ estimate.step)
        losses = (loss, after, predicted)
        probabilities = [min(1.0, float(np.exp(-value))) if target.image else None for value in losses]
        return TargetChange(*losses, *probabilities)

    def change_gradient(self, changes: Changes) -> Tensor:
        """Return :func:`core.editing.linear.change_gradient`, ``(P,)``, from stored gradients where they exist.

        Raises:
            UserError: something in the changes is not in the task list, or no task would remain.
        """
        applied = changes.apply(self.loaded.tasks)
        has_query = np.bincount(self._task_of, self._query & (applied.weights > 0)) > 0
        check_tasks_remain(bool(has_query.any()))
        change = row_change(self.loaded.train, applied.weights, applied.labels)
        relabelled = np.bincount(self._task_of, change.relabelled) > 0
        touched = (np.bincount(self._task_of, change.decrease != 0) > 0) & ~relabelled
        total = np.zeros(len(self._params))
        if self._tasks is not None:
            # For a removed task this is its total contribution; for a relabelled task, the gradient before the change.
            total += self._tasks[(touched & ~has_query) | relabelled].sum(0, dtype=np.float64)
            touched &= has_query
        if self._rows is not None:
            rows = np.flatnonzero((change.decrease != 0) & touched[self._task_of])
            for block in np.split(rows, range(_READ_ROWS, len(rows), _READ_ROWS)):
                total += change.decrease[block].astype(self._rows.dtype) @ self._rows[block]
            touched = np.zeros_like(touched)
        for piece in self._task_pieces(np.flatnonzero(touched | relabelled), change):
            total += piece
        return torch.from_numpy(total).to(self._params)

    def _task_pieces(self, positions: np.ndarray, change: RowChange) -> list[np.ndarray]:
        """Return the change gradient ``(P,)`` per task; for relabelled rows only what :attr:`_tasks` does not hold."""
        keys = [(int(position), self._change_bytes(int(position), change)) for position in positions]
        pieces = {key: self._last_pieces[key] if key in self._last_pieces else self._pieces.get(key) for key in keys}
        missing = {position: (position, content) for (position, content), piece in pieces.items() if piece is None}
        if missing:
            loaded, episodes, passes = self.loaded, self._episodes, passes_of(self.loaded.model)

            def of_chunk(chunk: Chunk) -> list[Tensor]:
                rows = episodes.rows(chunk.positions)
                if self._tasks is not None and any(change.relabelled[part].any() for part in rows):
                    return [-flatten(changed_gradients(passes, loaded.params, chunk, rows, change))[None]]
                return [flatten(chunk_gradients(passes, loaded.params, chunk, rows, change))[None]]

            for position, (piece,) in episodes.collect_chunks(of_chunk, np.array(list(missing), dtype=np.int64)):
                pieces[missing[int(position[0])]] = piece[0]
        self._last_pieces = {key: piece for key, piece in pieces.items() if piece is not None}
        self._pieces.update(self._last_pieces)
        return [self._last_pieces[key] for key in keys]

    def _change_bytes(self, position: int, change: RowChange) -> bytes:
        rows = slice(self._ends[position], self._ends[position + 1])
        labels = change.labels[rows] if change.relabelled[rows].any() else change.labels[:0]
        return change.decrease[rows].tobytes() + labels.tobytes()

    @cachedmethod(lambda self: self._solutions)
    def _solution(self, target: Target) -> _TargetSolution:
        gradient = self._target_gradient(target)
        return _TargetSolution(gradient, *self.solve(gradient))

    def solve(self, b: Tensor) -> tuple[Tensor, float]:
        """Return the solution ``(P,)`` for ``b`` by the basis, and its relative residual by the sketch."""
        if not b.any():
            return torch.zeros_like(b), 0.0
        x = self._basis.inverse(self._shift)(b)
        return x, sketched_residual(self._sketch, x, b)

    def _evaluate(self, params: Tensor) -> Evaluation:
        return evaluate(self.loaded.model, unflatten(params, self.loaded.params), self.loaded.heldout)

    def _target_gradient(self, target: Target) -> Tensor:
        loaded = self.loaded
        tasks = target.weighted(loaded.heldout_tasks)
        if target.image or self._heldout is None:
            return target_gradient(loaded.model, loaded.params, loaded.episodes(tasks))[0]
        ids = set(tasks.task_ids)
        positions = [position for position, task_id in enumerate(loaded.heldout_tasks.task_ids) if task_id in ids]
        return torch.from_numpy(self._heldout[positions].mean(0)).to(self._params)


def _class_changes(before: Evaluation, after: Evaluation) -> tuple[ClassChange, ...]:
    correct = before.rows.assign(before=_correct(before.rows), after=_correct(after.rows), count=1)
    means = correct.groupby("class", sort=True).agg({"count": "sum", "before": "mean", "after": "mean"})
    return tuple(ClassChange(str(name), int(n), float(b), float(a)) for name, n, b, a in means.itertuples())


def _correct(rows: pd.DataFrame) -> np.ndarray:
    return (rows["predicted"] == rows["label"]).to_numpy(np.float64)


def _task_changes(task_ids: list[str], before: Evaluation, after: Evaluation) -> tuple[TaskChange, ...]:
    change = after.loss - before.loss
    rows = zip(task_ids, before.accuracy.tolist(), after.accuracy.tolist(), change.tolist(), strict=True)
    changes = [TaskChange(*row) for row in rows]
    return tuple(changes[position] for position in np.argsort(change, kind="stable"))


def _target_loss(target: Target, evaluated: Evaluation, task_ids: list[str]) -> float:
    if target.image:
        rows = evaluated.rows
        is_target = (rows["task_id"] == target.tasks[0]) & (rows["image_id"] == target.image)
        return float(rows.loc[is_target, "loss"].mean())
    positions = [position for position, task_id in enumerate(task_ids) if not target.tasks or task_id in target.tasks]
    return float(evaluated.loss[positions].mean())
