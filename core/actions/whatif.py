"""What if this were removed, or the target another one? Answered at once, from what is kept with the workspace
(:mod:`core.actions.preparation`).

An :class:`Instant` answers with sums of kept gradients, a small product for the solve, and one evaluation of the
held-out tasks. Its answers are those of ``edit --how linear`` with :data:`core.actions.preparation.SETTINGS`:
**estimates** of what a retrain would give, with the residual of a solve by a basis.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.actions import gradients
from core.actions.basis import read_basis
from core.actions.compute import Compute, Loaded
from core.actions.preparation import HELDOUT, PROBES, ROWS, SKETCH, TASKS, prepared, row_ends, single
from core.editing.linear import weight_change
from core.errors import UserError
from core.influence.curvature import gradient_products
from core.influence.solvers import sketched_residual
from core.influence.targets import Target, target_gradient
from core.maml.episodes import Chunk
from core.maml.evaluation import Evaluation, Interval, evaluate
from core.maml.passes import passes_of
from core.maml.vectors import flatten, unflatten
from core.tasks.changes import Changes
from core.workspace.workspace import Workspace

_ANSWERS, _PIECE_BYTES = 64, 2.5e8  # kept in memory: answers to removal sets, and gradients that no file keeps
_ROWS = 1024  # read at once


@dataclass(frozen=True)
class WhatIf:
    """What a removal is estimated to do.

    Attributes:
        removed: How many tasks, images and instances.
        accuracy: Held-out, of the edited model.
        accuracy_change, loss_change: Against the unedited model, paired by held-out task; loss in nats. The intervals
            are over held-out tasks and do not hold the error of the estimate.
        predicted_loss_change: To first order.
        residual: Of the solve by the basis, relative, known to about an eighth.
        relative_step: Norm of the change of the parameters against theirs.
        seconds: How long the answer took.
    """

    removed: dict[str, int]
    accuracy: Interval
    accuracy_change: Interval
    loss_change: Interval
    predicted_loss_change: float
    residual: float
    relative_step: float
    seconds: float


@dataclass(frozen=True)
class TargetScores:
    """Estimated scores of all training tasks for a target: ``table`` has task_id and score, most harmful first."""

    table: pd.DataFrame
    residual: float
    seconds: float


class Instant:
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
        self._basis = read_basis(workspace.runs.get(report["basis"]), params)
        sketch = self._kept(SKETCH, PROBES)
        if sketch is None:
            raise UserError(f"{run.folder / SKETCH} is missing.", "Delete the run and do it again.")
        self._sketch = torch.from_numpy(np.array(sketch)).to(params)
        self._heldout = self._kept(HELDOUT, len(self.loaded.heldout))
        self._tasks = self._kept(TASKS, len(train))
        self._rows = self._kept(ROWS, len(train.tasks.rows))
        self._before = self._evaluated(params)  # which also warms up what the first answer needs
        self._mean = self._gradient_of(Target())
        self._single, ends = single(self.loaded), row_ends(train)
        self._task_of = np.repeat(np.arange(len(train)), np.diff(ends))
        self._query = (train.tasks.rows["role"] == "query").to_numpy()
        self._most_pieces = int(_PIECE_BYTES // (size * train.dtype.itemsize))
        self._pieces: OrderedDict[tuple[int, bytes], np.ndarray] = OrderedDict()
        self._answers: OrderedDict[str, WhatIf] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def report(self) -> dict[str, Any]:
        """What :func:`prepare` reports."""
        return self.run.json("report.json")

    def removal(self, removal: Changes) -> WhatIf:
        """What ``removal`` is estimated to do.

        Raises:
            UserError: nothing is removed, something of it is not in the task list, or nothing would be left.
        """
        if not len(removal):
            raise UserError("Nothing is marked for removal.", "Mark tasks or images first.")
        with self._lock:
            key = removal.hash
            if key not in self._answers:
                self._answers[key] = self._removal(removal)
            return _recent(self._answers, key, _ANSWERS)

    def target(self, target: Target) -> TargetScores:
        """Scores of all training tasks for ``target``: positive helps, negative harms.

        Raises:
            UserError: the target is not held out.
        """
        with self._lock:
            start = time.perf_counter()
            u, residual = self.solve(self._gradient_of(target))
            if self._tasks is None:
                loaded = self.loaded
                scores = gradient_products(loaded.model, loaded.params, loaded.train, u[None])[:, 0].cpu().numpy()
            else:
                scores = self._tasks @ u.cpu().numpy()
            table = pd.DataFrame({"task_id": self.loaded.train.tasks.task_ids, "score": scores})
            table = table.sort_values("score", kind="stable", ignore_index=True)
            return TargetScores(table, residual, time.perf_counter() - start)

    def _removal(self, removal: Changes) -> WhatIf:
        start = time.perf_counter()
        x, residual = self.solve(self.removal_gradient(removal))
        before, after = self._before, self._evaluated(self._params + x)
        return WhatIf(
            {kind: len(getattr(removal, kind)) for kind in ("tasks", "images", "instances")},
            after.mean_accuracy,
            Interval.of(after.accuracy - before.accuracy),
            Interval.of(after.loss - before.loss),
            float(self._mean @ x),
            residual,
            float(x.norm() / self._params.norm()),
            time.perf_counter() - start,
        )

    def removal_gradient(self, removal: Changes) -> Tensor:
        """:func:`core.editing.linear.removal_gradient` ``(P,)``, from kept gradients as far as they go."""
        tasks = self.loaded.train.tasks
        weights = removal.weights(tasks)
        alive = np.bincount(self._task_of, self._query & (weights > 0)) > 0
        if not alive.any():
            raise UserError("Nothing would be left of the task list.", "Remove less.")
        change = weight_change(self.loaded.train, weights)
        touched = np.bincount(self._task_of, change != 0) > 0
        total = np.zeros(len(self._params))
        if self._tasks is not None:  # of a task that leaves, its own gradient is the whole
            total += self._tasks[touched & ~alive].sum(0, dtype=np.float64)
            touched &= alive
        if self._rows is None:
            for piece in self._piece(np.flatnonzero(touched), change):
                total += piece
        else:
            rows = np.flatnonzero((change != 0) & touched[self._task_of])
            for some in np.split(rows, range(_ROWS, len(rows), _ROWS)):
                total += change[some].astype(self._rows.dtype) @ self._rows[some]
        return torch.from_numpy(total).to(self._params)

    def _piece(self, positions: np.ndarray, change: np.ndarray) -> list[np.ndarray]:
        """The removal gradient of every task at ``positions`` by itself; of those asked for lately from memory."""
        keys = [(int(at), change[self._task_of == at].tobytes()) for at in positions]
        missing = np.array([at for at, lost in keys if (at, lost) not in self._pieces], dtype=np.int64)
        found: dict[int, np.ndarray] = {}
        if len(missing):
            loaded, changes = self.loaded, self._single.with_weights(change)
            passes = passes_of(loaded.model)

            def of_chunk(chunk: Chunk) -> list[Tensor]:
                found = passes.removals(loaded.params, chunk.task, changes.at(chunk.positions))
                return [flatten(found)[None]]  # of one task, so that an answer does not depend on its company

            found = {int(at[0]): piece[0] for at, (piece,) in self._single.collected(of_chunk, missing)}
        pieces = []
        for key in keys:
            if key[0] in found:
                self._pieces[key] = found[key[0]]
            pieces.append(self._pieces[key])
        for key in keys:
            _recent(self._pieces, key, max(self._most_pieces, len(keys)))
        return pieces

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
        return gradients.read(self.run, name, (rows, len(self._params)))


Key = TypeVar("Key")
Value = TypeVar("Value")


def _recent(kept: OrderedDict[Key, Value], key: Key, most: int) -> Value:
    """The value under ``key``, the newest from now on; the oldest give way to at most ``most``."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]
