"""What if this were removed or relabelled, or the target another one? Answered at once, from what is kept with the
workspace (:mod:`core.actions.preparation`).

An :class:`WhatIfEstimator` answers with sums of kept gradients, a small product for the solve, and one evaluation of
the held-out tasks. Its answers are those of ``edit --how linear`` with :data:`core.actions.preparation.SETTINGS`:
**estimates** of what a retrain would give, with the residual of a solve by a basis.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.actions.compute import Compute, Loaded
from core.actions.preparation import HELDOUT, PROBES, ROWS, SKETCH, TASKS, prepared, row_ends, single
from core.editing.linear import RowChange, changed_gradients, chunk_gradients, row_change
from core.influence import gradient_files as gradients
from core.influence.basis import read_basis
from core.influence.curvature import gradient_products
from core.influence.scores import instance_table
from core.influence.solvers import sketched_residual
from core.influence.targets import Target, target_gradient
from core.maml.episodes import Chunk
from core.maml.evaluation import Evaluation, Interval, evaluate
from core.maml.passes import passes_of
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.tasks.changes import Changes
from core.workspace.workspace import Workspace

_ANSWERS, _PIECE_BYTES = 64, 2.5e8  # kept in memory: answers to sets, and gradients that no file keeps
_TARGETS = 16
_ROWS = 1024  # read at once


class ClassChange(NamedTuple):
    """Share of a class's held-out query rows that is seen right, before and after."""

    name: str
    rows: int
    before: float
    after: float


class TaskChange(NamedTuple):
    """Accuracy of one held-out task before and after, and what its loss gains, in nats."""

    task_id: str
    before: float
    after: float
    loss_change: float


@dataclass(frozen=True)
class TargetChange:
    """What a set of changes is estimated to do to one target.

    Attributes:
        loss, loss_after: Of the unedited and of the edited model, in nats.
        loss_predicted: After, to first order.
        probability, probability_after, probability_predicted: Of the true class, where the target is one query image;
            the predicted one is that of ``loss_predicted``.
    """

    loss: float
    loss_after: float
    loss_predicted: float
    probability: float | None
    probability_after: float | None
    probability_predicted: float | None


@dataclass(frozen=True)
class WhatIf:
    """What a set of changes is estimated to do.

    Attributes:
        removed: How many tasks, images and instances.
        relabelled: How many images and instances.
        accuracy: Held-out, of the edited model.
        accuracy_change, loss_change: Against the unedited model, paired by held-out task; loss in nats. The intervals
            are over held-out tasks and do not hold the error of the estimate.
        classes: Every class of held-out query rows, by name.
        tasks: Every held-out task, the one that gains most (whose loss falls most) first.
        predicted_loss_change: To first order.
        residual: Of the solve by the basis, relative, known to about an eighth.
        relative_step: Norm of the change of the parameters against theirs.
        seconds: How long the answer took.
        target: If one was asked for.
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


@dataclass(frozen=True)
class TargetScores:
    """Estimated scores for a target: positive helps, negative harms; ``table`` has the most harmful first.

    Attributes:
        table: Of tasks task_id and score; of images image_id, class (as given first), score (summed over all its rows),
            score_support, score_query (its parts) and occurrences.
    """

    table: pd.DataFrame
    residual: float
    seconds: float


class _Answer(NamedTuple):
    found: WhatIf
    step: Tensor
    after: Evaluation


class _Solved(NamedTuple):
    gradient: Tensor
    u: Tensor
    residual: float


class WhatIfEstimator:
    """Answers what-ifs about one workspace; opened once, used by any number of threads.

    Raises:
        UserError: nothing was prepared for the problem as it now is, or what was kept is damaged.
    """

    def __init__(self, workspace: Workspace, compute: Compute) -> None:
        run = prepared(workspace, compute)
        if run is None:
            raise UserError("Nothing is prepared for what-ifs on this problem.", "Run whatif --prepare.")
        self.run, self.loaded = run, Loaded(workspace.project(), compute)
        report, params, train = run.json("report.json"), flatten(self.loaded.params), self.loaded.train
        size = len(params)
        self._params, self._shift = params, float(report["shift"])
        self._basis = read_basis(workspace.runs.get(report["basis"]).folder, params)
        sketch = self._kept(SKETCH, PROBES)
        if sketch is None:
            raise UserError(f"{run.folder / SKETCH} is missing.", "Delete the run and do it again.")
        self._sketch = torch.from_numpy(np.array(sketch)).to(params)
        self._heldout = self._kept(HELDOUT, len(self.loaded.heldout))
        self._tasks = self._kept(TASKS, len(train))
        self._rows = self._kept(ROWS, len(train.tasks.rows))
        self._before = self._evaluated(params)  # which also warms up what the first answer needs
        self._mean = self._gradient_of(Target())
        self._single, self._ends = single(self.loaded), row_ends(train)
        self._task_of = np.repeat(np.arange(len(train)), np.diff(self._ends))
        self._query = (train.tasks.rows["role"] == "query").to_numpy()
        self._most_pieces = int(_PIECE_BYTES // (size * train.dtype.itemsize))
        self._pieces: OrderedDict[tuple[int, bytes], np.ndarray] = OrderedDict()
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._targets: OrderedDict[Target, _Solved] = OrderedDict()
        self._images: OrderedDict[Target, TargetScores] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def report(self) -> dict[str, Any]:
        """What :func:`prepare` reports."""
        return self.run.json("report.json")

    @property
    def unedited(self) -> Evaluation:
        """Of the model as it is, on the held-out tasks."""
        return self._before

    def changes(self, changes: Changes, target: Target | None = None) -> WhatIf:
        """What ``changes`` are estimated to do, to all held-out tasks and to ``target``.

        Raises:
            UserError: nothing is changed, something of it is not in the task list, nothing would be left, or the target
                is not held out.
        """
        if not len(changes):
            raise UserError("Nothing is removed or relabelled.", "Decide on tasks or images first.")
        with self._lock:
            key = changes.hash
            if key not in self._answers:
                self._answers[key] = self._changes(changes)
            answer = _recent(self._answers, key, _ANSWERS)
            return replace(answer.found, target=self._target_change(target, answer)) if target else answer.found

    def target(self, target: Target) -> TargetScores:
        """Scores of all training tasks for ``target``.

        Raises:
            UserError: the target is not held out.
        """
        with self._lock:
            start = time.perf_counter()
            _, u, residual = self._solved(target)
            if self._tasks is None:
                loaded = self.loaded
                scores = gradient_products(loaded.model, loaded.params, loaded.train, u[None])[:, 0].cpu().numpy()
            else:
                scores = self._tasks @ u.cpu().numpy()
            table = pd.DataFrame({"task_id": self.loaded.train.tasks.task_ids, "score": scores})
            table = table.sort_values("score", kind="stable", ignore_index=True)
            return TargetScores(table, residual, time.perf_counter() - start)

    def images(self, target: Target) -> TargetScores:
        """Scores of all training images for ``target``: one pass over the tasks where gradients of rows are not kept.

        Raises:
            UserError: the target is not held out.
        """
        with self._lock:
            if target not in self._images:
                start = time.perf_counter()
                _, u, residual = self._solved(target)
                table = self._image_scores(self._row_scores(u))
                self._images[target] = TargetScores(table, residual, time.perf_counter() - start)
            return _recent(self._images, target, _TARGETS)

    def _row_scores(self, u: Tensor) -> np.ndarray:
        loaded = self.loaded
        if self._rows is None:
            return instance_table(loaded.model, loaded.params, u, loaded.train)["score"].to_numpy()
        return np.asarray(self._rows @ u.cpu().numpy())

    def _image_scores(self, scores: np.ndarray) -> pd.DataFrame:
        rows = self.loaded.train.tasks.rows
        weighted = scores * rows["weight"].to_numpy()
        parts = rows[["image_id", "class"]].assign(
            score=weighted,
            score_support=np.where(self._query, 0.0, weighted),
            score_query=np.where(self._query, weighted, 0.0),
            occurrences=1,
        )
        summed = dict.fromkeys(("score", "score_support", "score_query", "occurrences"), "sum")
        table = parts.groupby("image_id", sort=True).agg({"class": "first", **summed}).reset_index()
        return table.sort_values("score", kind="stable", ignore_index=True)

    def _changes(self, changes: Changes) -> _Answer:
        start = time.perf_counter()
        x, residual = self.solve(self.change_gradient(changes))
        before, after = self._before, self._evaluated(self._params + x)
        found = WhatIf(
            changes.removed,
            changes.relabelled,
            after.mean_accuracy,
            Interval.of(after.accuracy - before.accuracy),
            Interval.of(after.loss - before.loss),
            _by_class(before, after),
            _by_task(self.loaded.heldout.tasks.task_ids, before, after),
            float(self._mean @ x),
            residual,
            float(x.norm() / self._params.norm()),
            time.perf_counter() - start,
        )
        return _Answer(found, x, after)

    def _target_change(self, target: Target, answer: _Answer) -> TargetChange:
        loss, after = (
            _loss_of(target, one, self.loaded.heldout.tasks.task_ids) for one in (self._before, answer.after)
        )
        predicted = loss + float(self._solved(target).gradient @ answer.step)
        values = (loss, after, predicted)
        probabilities = [min(1.0, float(np.exp(-value))) if target.image else None for value in values]
        return TargetChange(*values, *probabilities)

    def change_gradient(self, changes: Changes) -> Tensor:
        """:func:`core.editing.linear.change_gradient` ``(P,)``, from kept gradients as far as they go."""
        train = self.loaded.train
        applied = changes.applied(train.tasks)
        alive = np.bincount(self._task_of, self._query & (applied.weights > 0)) > 0
        if not alive.any():
            raise UserError("Nothing would be left of the task list.", "Remove less.")
        change = row_change(train, applied.weights, applied.labels)
        relabelled = np.bincount(self._task_of, change.moved) > 0
        touched = (np.bincount(self._task_of, change.lost != 0) > 0) & ~relabelled
        total = np.zeros(len(self._params))
        if (
            self._tasks is not None
        ):  # of a task that leaves, its own gradient is the whole; of one with other labels half
            total += self._tasks[(touched & ~alive) | relabelled].sum(0, dtype=np.float64)
            touched &= alive
        if self._rows is not None:
            rows = np.flatnonzero((change.lost != 0) & touched[self._task_of])
            for some in np.split(rows, range(_ROWS, len(rows), _ROWS)):
                total += change.lost[some].astype(self._rows.dtype) @ self._rows[some]
            touched = np.zeros_like(touched)
        for piece in self._piece(np.flatnonzero(touched | relabelled), change):
            total += piece
        return torch.from_numpy(total).to(self._params)

    def _piece(self, positions: np.ndarray, change: RowChange) -> list[np.ndarray]:
        """The change gradient of every task at ``positions`` by itself; of those asked for lately from memory.

        Of tasks with relabelled rows only the part after the change, where that before is kept.
        """
        keys = [(int(at), self._change_of(int(at), change)) for at in positions]
        missing = np.array([at for at, own in keys if (at, own) not in self._pieces], dtype=np.int64)
        found: dict[int, np.ndarray] = {}
        if len(missing):
            loaded, single, passes = self.loaded, self._single, passes_of(self.loaded.model)

            def of_chunk(chunk: Chunk) -> list[Tensor]:  # of one task, so that an answer does not depend on its company
                rows = single.rows(chunk.positions)
                if self._tasks is not None and any(change.moved[part].any() for part in rows):
                    return [-flatten(changed_gradients(passes, loaded.params, chunk, rows, change))[None]]
                return [flatten(chunk_gradients(passes, loaded.params, chunk, rows, change))[None]]

            found = {int(at[0]): piece[0] for at, (piece,) in single.collected(of_chunk, missing)}
        pieces = []
        for key in keys:
            if key[0] in found:
                self._pieces[key] = found[key[0]]
            pieces.append(self._pieces[key])
        for key in keys:
            _recent(self._pieces, key, max(self._most_pieces, len(keys)))
        return pieces

    def _change_of(self, position: int, change: RowChange) -> bytes:
        """What changes in one task."""
        here = slice(self._ends[position], self._ends[position + 1])
        labels = change.labels[here] if change.moved[here].any() else change.labels[:0]
        return change.lost[here].tobytes() + labels.tobytes()

    def _solved(self, target: Target) -> _Solved:
        if target not in self._targets:
            gradient = self._gradient_of(target)
            self._targets[target] = _Solved(gradient, *self.solve(gradient))
        return _recent(self._targets, target, _TARGETS)

    def solve(self, b: Tensor) -> tuple[Tensor, float]:
        """The solution by the basis and its residual, from the sketch of what the basis leaves out."""
        if not b.any():
            return torch.zeros_like(b), 0.0
        x = self._basis.inverse(self._shift)(b)
        return x, sketched_residual(self._sketch, x, b)

    def _evaluated(self, params: Tensor) -> Evaluation:
        return evaluate(self.loaded.model, unflatten(params, self.loaded.params), self.loaded.heldout)

    def _gradient_of(self, target: Target) -> Tensor:
        loaded = self.loaded
        chosen = target.weighted(loaded.project.tasks.heldout)
        if target.image or self._heldout is None:
            return target_gradient(loaded.model, loaded.params, loaded.episodes(chosen))[0]
        wanted = set(chosen.task_ids)
        at = [position for position, name in enumerate(loaded.heldout.tasks.task_ids) if name in wanted]
        return torch.from_numpy(self._heldout[at].mean(0)).to(self._params)

    def _kept(self, name: str, rows: int) -> np.ndarray | None:
        return gradients.read(self.run.folder / name, (rows, len(self._params)))


def _by_class(before: Evaluation, after: Evaluation) -> tuple[ClassChange, ...]:
    right = before.rows.assign(before=_right(before.rows), after=_right(after.rows), count=1)
    found = right.groupby("class", sort=True).agg({"count": "sum", "before": "mean", "after": "mean"})
    return tuple(ClassChange(str(name), int(n), float(b), float(a)) for name, n, b, a in found.itertuples())


def _right(rows: pd.DataFrame) -> np.ndarray:
    return (rows["predicted"] == rows["label"]).to_numpy(np.float64)


def _by_task(task_ids: list[str], before: Evaluation, after: Evaluation) -> tuple[TaskChange, ...]:
    change = after.loss - before.loss
    return tuple(
        TaskChange(task_ids[at], float(before.accuracy[at]), float(after.accuracy[at]), float(change[at]))
        for at in np.argsort(change, kind="stable")
    )


def _loss_of(target: Target, evaluated: Evaluation, task_ids: list[str]) -> float:
    if target.image:
        rows = evaluated.rows
        here = (rows["task_id"] == target.tasks[0]) & (rows["image_id"] == target.image)
        return float(rows.loc[here, "loss"].mean())
    wanted = [position for position, name in enumerate(task_ids) if not target.tasks or name in target.tasks]
    return float(evaluated.loss[wanted].mean())


Key = TypeVar("Key")
Value = TypeVar("Value")


def _recent(kept: OrderedDict[Key, Value], key: Key, most: int) -> Value:
    """The value under ``key``, the newest from now on; the oldest give way to at most ``most``."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]
