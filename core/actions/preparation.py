"""The long part of answering what-ifs, done once: an eigenbasis of the curvature, and gradients that add up.

A removal gradient is linear in what the weights lose (:mod:`core.editing.rows`), so that kept gradients of all rows
answer every removal set, those of tasks every target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.actions.compute import Compute, Loaded
from core.actions.edit import SOLVE
from core.editing.rows import row_gradients
from core.influence import gradient_files as gradients
from core.influence.basis import ENGINE_VERSION, residual_probe
from core.influence.solve import Solver
from core.influence.solvers import low_rank, residual_sketch
from core.influence.targets import target_gradient
from core.maml.episodes import Chunk, Episodes
from core.maml.passes import passes_of
from core.maml.vectors import flatten
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "whatif"
SETTINGS = replace(SOLVE, solver="low-rank", rank=120)
"""The linear edit's own, with a basis for conjugate gradients."""
PROBES = 32
"""Of the sketch that residuals are read from: they are known to about an eighth."""
TASKS, ROWS, HELDOUT, SKETCH = "tasks.npy", "rows.npy", "heldout.npy", "sketch.npy"
# Of a task's gradient: a curvature product, a support row's removal gradient and a query row's, as measured.
_PRODUCT, _SUPPORT, _QUERY = 1.6, 3.2, 1.1


def cache_key(project: Project, compute: Compute) -> dict[str, Any]:
    """What names the prepared work, as :class:`core.workspace.runs.Runs` takes it."""
    return {**project.hashes, "engine": ENGINE_VERSION, **asdict(SETTINGS), "probes": PROBES, "dtype": compute.dtype}


def prepared(workspace: Workspace, compute: Compute) -> Run | None:
    """The finished preparation for the problem as it now is; None if there is none."""
    return workspace.runs.find(KIND, cache_key(workspace.project(), compute))


def prepare(workspace: Workspace, compute: Compute, progress: Progress) -> Run:
    """Compute and keep what an :class:`Instant` answers from.

    The run holds ``sketch.npy`` (what the basis leaves out), ``heldout.npy``, ``tasks.npy`` and ``rows.npy`` (gradients
    of held-out tasks, of training tasks, and of every row of theirs; each only while it fits
    :data:`core.influence.gradient_files.MOST_BYTES`), and ``report.json``: damping, shift, values of the basis,
    residuals for a random vector and for the mean of all targets, bytes.
    """
    project = workspace.project()

    def work(run: RunWriter) -> None:
        loaded = Loaded(project, compute)
        solver = Solver(loaded, loaded.model, SETTINGS, run, progress, workspace.runs)
        basis = solver.basis()
        progress.stage("what the basis leaves out", PROBES)
        with run.timed("sketch"):
            sketch = residual_sketch(solver.product, basis, PROBES, on_iteration=lambda _: progress.advance())
        run.write(lambda folder: np.save(folder / SKETCH, sketch.cpu().numpy()))
        with run.timed("gradients"):
            _keep_gradients(loaded, run, progress)
        mean, _ = target_gradient(loaded.model, loaded.params, loaded.heldout)
        solved = {"random": residual_probe(mean), "mean target": mean}
        solver.with_adaptive_damping(lambda: low_rank(solver.product, mean, basis, shift=solver.shift))
        run.write_json(
            "report.json",
            {
                "basis": solver.basis_folder().name,
                "curvature": SETTINGS.curvature,
                "curvature_tasks": solver.tasks,
                "rank": len(basis.values),
                "values": basis.values.tolist(),
                "damping": solver.damping,
                "shift": solver.shift,
                "residuals": {
                    name: low_rank(solver.product, b, basis, shift=solver.shift).residual for name, b in solved.items()
                },
                "bytes": sum(path.stat().st_size for path in run.folder.glob("*.npy")),
            },
        )

    return workspace.runs.get_or_compute(KIND, cache_key(project, compute), work)


def prepare_seconds(project: Project, per_gradient: float, compute: Compute) -> float:
    """How long :func:`prepare` takes where the gradient of one task takes ``per_gradient`` seconds."""
    rows, tasks = project.tasks.train.rows, len(project.tasks.train)
    size = sum(value.numel() for value in project.model.params.values())
    support = int((rows["role"] == "support").sum())
    products = (SETTINGS.rank + PROBES) * min(SETTINGS.curvature_tasks, tasks)
    passes = _PRODUCT * products + tasks + len(project.tasks.heldout)
    if gradients.fits(len(rows), size, compute.torch_dtype()):
        passes += _SUPPORT * support + _QUERY * (len(rows) - support)
    return per_gradient * passes


def prepare_bytes(project: Project, compute: Compute) -> int:
    """How much of the disk the gradients take that :func:`prepare` keeps."""
    tasks, dtype = project.tasks, compute.torch_dtype()
    size = sum(value.numel() for value in project.model.params.values())
    counts = len(tasks.heldout), len(tasks.train), len(tasks.train.rows)
    return sum(rows * size * dtype.itemsize for rows in counts if gradients.fits(rows, size, dtype))


def _keep_gradients(loaded: Loaded, run: RunWriter, progress: Progress) -> None:
    model, params = loaded.model, loaded.params
    size, passes = flatten(params).numel(), passes_of(model)

    def of_tasks(chunk: Chunk) -> Tensor:
        found, _ = passes.gradients(params, chunk.task)
        return torch.cat([value.flatten(1) for value in found.values()], 1)

    def of_rows(chunk: Chunk) -> Tensor:
        return row_gradients(model, params, chunk.task)

    each = single(loaded)
    ends = row_ends(each)

    def keep(
        name: str,
        words: str,
        rows: int,
        episodes: Episodes,
        of_chunk: Callable[[Chunk], Tensor],
        rows_of: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        memory = run.memory()
        if not gradients.fits(rows, size, episodes.dtype):
            return
        progress.stage(words, len(episodes))
        gradients.write(run.folder / name, (rows, size), episodes, of_chunk, rows_of, memory, on_chunk=progress.advance)

    keep(HELDOUT, "gradients of held-out tasks", len(loaded.heldout), loaded.heldout, of_tasks, lambda at: at)
    keep(TASKS, "gradients of training tasks", len(loaded.train), loaded.train, of_tasks, lambda at: at)
    rows = len(loaded.train.tasks.rows)
    keep(ROWS, "gradients of all rows", rows, each, of_rows, lambda at: np.arange(ends[at[0]], ends[at[0] + 1]))


def single(loaded: Loaded) -> Episodes:
    """The training tasks one at a time, so that what a task gives does not depend on which others are asked for."""
    return Episodes(
        loaded.project.tasks.train, loaded.project.images, device=loaded.device, dtype=loaded.train.dtype, chunk=1
    )


def row_ends(episodes: Episodes) -> np.ndarray:
    """``(tasks + 1,)``: rows of task k stand from entry k to entry k + 1 of the task table."""
    task_id = episodes.tasks.rows["task_id"].to_numpy()
    return np.r_[np.flatnonzero(np.r_[True, task_id[1:] != task_id[:-1]]), len(task_id)]
