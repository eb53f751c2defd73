"""The expensive part of what-if estimates, computed once: an eigenbasis of the curvature, and gradients that add up.

The removal gradient (:mod:`core.editing.linear`) is linear in the decrease of the weights, so stored gradients of all
rows serve every removal set, and those of held-out tasks every target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.editing.methods import SOLVE
from core.editing.preparation_report import REPORT, PreparationReport
from core.influence import gradient_files as gradients
from core.influence.basis import residual_probe
from core.influence.methods import SolveSettings
from core.influence.solve import Solver
from core.influence.solvers import low_rank, residual_sketch
from core.influence.targets import target_gradient
from core.maml.backbone import Params
from core.maml.cost import QUERY_ROW, SUPPORT_ROW, Cost
from core.maml.episodes import Chunk, Episodes
from core.maml.loaded import Loaded
from core.maml.objective import Bilevel, Task
from core.maml.passes import passes_of
from core.maml.storage import ResultStore, ResultWriter
from core.maml.vectors import flatten, flatten_each
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.runtime.replacing import write_array
from core.runtime.stored import read_stored
from core.tasks.tasklist import TaskList

SETTINGS = replace(SOLVE, solver="low-rank", rank=120)
"""The linear edit's default solve, with an eigenbasis instead of conjugate gradients."""
PROBES = 32
"""Vectors of the sketch that residuals are estimated from: their relative error is about an eighth."""
_COPIES = 5  # of a task, processed together; more are no faster
TASKS, ROWS, HELDOUT, SKETCH = "tasks.npy", "rows.npy", "heldout.npy", "sketch.npy"


def prepare_estimates(
    loaded: Loaded, settings: SolveSettings, writer: ResultWriter, store: ResultStore, progress: Progress
) -> None:
    """Compute and store what a :class:`core.editing.whatif.WhatIfEstimator` reads.

    Writes ``sketch.npy`` (a sketch of the curvature outside the basis), ``heldout.npy``, ``tasks.npy`` and ``rows.npy``
    (gradients of held-out tasks, of training tasks, and of every row of these; each only if it fits
    :data:`core.influence.gradient_files.MAX_BYTES`), and ``report.json``: id of the basis, damping, shift, eigenvalues
    of the basis, relative residuals of solves for a random vector and for the mean of all targets, bytes.
    """
    solver = Solver(loaded, loaded.model, settings, writer, progress, store)
    basis = solver.basis()
    progress.stage("curvature outside the basis", PROBES)
    with writer.timed("sketch"):
        sketch = residual_sketch(solver.product, basis, PROBES, on_iteration=lambda _: progress.advance())
    writer.write(lambda folder: write_array(folder / SKETCH, sketch.cpu().numpy()))
    with writer.timed("gradients"):
        _store_gradients(loaded, writer, progress)
    mean, _ = target_gradient(loaded.model, loaded.params, loaded.heldout)
    solver.with_adaptive_damping(lambda: low_rank(solver.product, mean, basis, shift=solver.shift))
    vectors = {"random": residual_probe(mean), "mean target": mean}
    report = {
        "basis": solver.basis_folder().name,
        "curvature": settings.curvature,
        "curvature_tasks": solver.tasks,
        "rank": len(basis.values),
        "values": basis.values.tolist(),
        "damping": solver.damping,
        "shift": solver.shift,
        "residuals": {
            name: low_rank(solver.product, b, basis, shift=solver.shift).residual for name, b in vectors.items()
        },
        "bytes": sum(path.stat().st_size for path in writer.folder.glob("*.npy")),
    }
    writer.write_json(REPORT, report)


def preparation_cost(
    tasks: TaskList, heldout_tasks: int, size: int, dtype: torch.dtype, settings: SolveSettings
) -> Cost:
    """Return the cost of :func:`prepare_estimates` for a model of ``size`` parameters."""
    rows = tasks.rows
    cost = Cost(
        gradients=len(tasks) + heldout_tasks,
        products=(settings.rank + PROBES) * min(settings.curvature_tasks or len(tasks), len(tasks)),
    )
    if gradients.fits(len(rows), size, dtype):
        support = int((rows["role"] == "support").sum())
        cost += Cost(gradients=SUPPORT_ROW * support + QUERY_ROW * (len(rows) - support))
    return cost


def preparation_bytes(tasks: TaskList, heldout_tasks: int, size: int, dtype: torch.dtype) -> int:
    """Return the disk space of the gradients that :func:`prepare_estimates` stores."""
    counts = heldout_tasks, len(tasks), len(tasks.rows)
    return sum(count * size * dtype.itemsize for count in counts if gradients.fits(count, size, dtype))


@dataclass(frozen=True)
class PreparedFiles:
    """The files of :func:`prepare_estimates`, with the folder of the basis (:mod:`core.influence.basis`)."""

    folder: Path
    basis_folder: Path

    @property
    def id(self) -> str:
        """Return the id of the run."""
        return self.folder.name

    @cached_property
    def report(self) -> PreparationReport:
        """Return ``report.json``."""
        return read_stored(self.folder / REPORT, PreparationReport, fix="Delete the run and repeat it.")

    def sketch(self, like: Tensor) -> Tensor:
        """Read the sketch ``(PROBES, P)`` to the device and precision of ``like`` ``(P,)``; UserError if damaged."""
        sketch = self.gradients(SKETCH, PROBES, like.numel())
        if sketch is None:
            raise UserError(f"{self.folder / SKETCH} is missing.", "Delete the run and repeat it.")
        return torch.from_numpy(np.array(sketch)).to(like)

    def gradients(self, name: str, rows: int, size: int) -> np.ndarray | None:
        """Map gradients ``(rows, size)``, None if they are too large to be stored; UserError if the file is damaged."""
        return gradients.read(self.folder / name, (rows, size))


def _store_gradients(loaded: Loaded, writer: ResultWriter, progress: Progress) -> None:
    model, params = loaded.model, loaded.params
    size, passes = flatten(params).numel(), passes_of(model)

    def of_tasks(chunk: Chunk) -> Tensor:
        return flatten_each(passes.gradients(params, chunk.task)[0])

    def of_rows(chunk: Chunk) -> Tensor:
        return row_gradients(model, params, chunk.task)

    def store(
        name: str,
        stage: str,
        rows: int,
        episodes: Episodes,
        of_chunk: Callable[[Chunk], Tensor],
        rows_of: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        cache, path = writer.memory(), writer.folder / name
        if gradients.fits(rows, size, episodes.dtype):
            progress.stage(stage, len(episodes))
            gradients.write(path, (rows, size), episodes, of_chunk, rows_of, cache, on_chunk=progress.advance)

    episodes = single_task_episodes(loaded)
    ends, rows = row_ends(loaded.tasks), len(loaded.tasks.rows)
    heldout, train = loaded.heldout, loaded.train
    store(HELDOUT, "gradients of held-out tasks", len(heldout), heldout, of_tasks, lambda at: at)
    store(TASKS, "gradients of training tasks", len(train), train, of_tasks, lambda at: at)
    store(ROWS, "gradients of all rows", rows, episodes, of_rows, lambda at: np.arange(ends[at[0]], ends[at[0] + 1]))


def row_gradients(model: Bilevel, params: Params, chunk: Task) -> Tensor:
    """Return the gradient of removing each row of a single task ``(1, ...)``, ``(S + Q, P)``, support rows first."""
    passes, parts = passes_of(model), []
    for weights in torch.eye(chunk.s.shape[-1]).to(chunk.s).split(_COPIES):
        copies = _repeat(chunk, len(weights))
        change = copies._replace(s=weights, q=torch.zeros_like(copies.q))
        parts.append(flatten_each(passes.weight_change_gradients(params, copies, change)))
    for weights in torch.eye(chunk.q.shape[-1]).to(chunk.q).split(_COPIES):
        # A query row's share of the loss is the loss of the task in which no other query row has any weight.
        gradients, _ = passes.gradients(params, _repeat(chunk, len(weights))._replace(q=weights))
        parts.append(flatten_each(gradients))
    return torch.cat(parts)


def _repeat(chunk: Task, times: int) -> Task:
    copies = Task(*(value.expand(times, *value.shape[1:]) for value in chunk))
    return copies._replace(s=copies.s.clone(), q=copies.q.clone())  # forward mode refuses weights that share memory


def single_task_episodes(loaded: Loaded) -> Episodes:
    """Return the training tasks in chunks of one, so that a task's result does not depend on its chunk."""
    return Episodes(loaded.tasks, loaded.images, device=loaded.device, dtype=loaded.compute.torch_dtype(), chunk=1)


def row_ends(tasks: TaskList) -> np.ndarray:
    """Return ``(tasks + 1,)``: the rows of task k are those from entry k to entry k + 1 of the task table."""
    task_id = tasks.rows["task_id"].to_numpy()
    return np.r_[np.flatnonzero(np.r_[True, task_id[1:] != task_id[:-1]]), len(task_id)]
