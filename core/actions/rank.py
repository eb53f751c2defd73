"""Rank all training tasks, instances and images by their influence on an evaluation target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.actions.compute import Compute, Loaded
from core.actions.evaluate import evaluation
from core.influence.basis import ENGINE_VERSION
from core.influence.curvature import task_gradients
from core.influence.methods import Estimator
from core.influence.scores import check_scores, image_table, instance_table, task_table
from core.influence.self_influence import directions, relative_error
from core.influence.solve import Solver
from core.influence.solvers import Basis, Solution, conjugate_gradients, low_rank
from core.influence.targets import Target, target_gradient
from core.maml.adaptation import Implicit
from core.maml.objective import Bilevel
from core.maml.training import Snapshot
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.workspace.runs import Run, Runs, RunWriter
from core.workspace.workspace import Workspace

KIND = "rank"
_CHECKED_TASKS = 4


def ranking(workspace: Workspace, target: Target, estimator: Estimator, compute: Compute, progress: Progress) -> Run:
    """Scores against ``target``, positive = helpful, in nats of the target's loss that removal would add.

    The run holds ``instances.parquet``, ``tasks.parquet``, ``images.parquet`` (:mod:`core.influence.scores`) and
    ``solver.json`` (:meth:`core.influence.solve.Solver.report`, the method, the target's loss, and the stationarity of
    the model). ``tracin`` has no solve, ``self-influence`` no target; its scores are minus the self-influence, so that
    the most suspicious come first here as everywhere.
    """
    project = workspace.project()
    target.weighted(project.tasks.heldout)  # says so if it is not held out, before anything long begins
    question = {
        **project.hashes,
        "engine": ENGINE_VERSION,
        "target": "" if estimator.name == "self-influence" else str(target),
        **estimator.question(),
        "dtype": compute.dtype,
    }
    trajectory = workspace.trajectory() if estimator.name == "tracin" else []

    def work(run: RunWriter) -> None:
        measured = evaluation(workspace, compute, progress).json("summary.json")
        loaded = Loaded(project, compute)
        if estimator.name == "self-influence":
            tables, report = _self_influence(loaded, estimator, run, progress, workspace.runs)
        elif estimator.name == "tracin":
            tables, report = _tracin(loaded, target, trajectory, run, progress)
        else:
            tables, report = _influence(loaded, target, estimator, run, progress, workspace.runs)
        for name, table in tables.items():
            run.write_table(f"{name}.parquet", table)
        report |= {
            "method": estimator.name,
            "words": estimator.words,
            "gradient": estimator.gradient,
            "evaluation": estimator.evaluation,
            "inner": measured.get("inner"),
            "inner_inverse": estimator.inner,
            "target": str(target),
            "stationarity": measured["stationarity"],
        }
        run.write_json("solver.json", report)

    return workspace.runs.get_or_compute(KIND, question, work)


def configure_gradient(model: Bilevel, gradient: str, inner: str = "cg") -> Bilevel:
    """The model as its ``total`` or ``direct`` gradients read it, with the inverse of the inner Hessian as asked for.

    Raises:
        UserError: EK-FAC was asked for, but there is no inner Hessian to invert.
    """
    if inner != "cg":
        if not isinstance(model.adaptation, Implicit):
            raise UserError(
                "EK-FAC is for the inner Hessian, but this model adapts by gradient steps, which have none.",
                "Leave --inner at cg, or train with --algorithm imaml.",
            )
        model = replace(model, adaptation=replace(model.adaptation, inverse=inner))
    return replace(model, first_order=True) if gradient == "direct" else model


Tables = dict[str, pd.DataFrame]


def _influence(
    loaded: Loaded, target: Target, estimator: Estimator, run: RunWriter, progress: Progress, runs: Runs
) -> tuple[Tables, dict[str, Any]]:
    model = configure_gradient(loaded.model, estimator.gradient, estimator.inner)
    v, loss = _target_gradient(loaded, target, estimator.evaluation, run, progress, estimator.inner)
    if estimator.solve is None:
        u, report = v, _unsolved(loaded)
    else:
        solver = Solver(loaded, model, estimator.solve, run, progress, runs)
        solution = solver.solve(v)
        u, report = solution.x, solver.report(solution)
    instances = _instances(loaded, model, u, run, progress)
    return _tables(instances), report | {"target_loss": loss}


def _target_gradient(
    loaded: Loaded, target: Target, gradient: str, run: RunWriter, progress: Progress, inner: str = "cg"
) -> tuple[Tensor, float]:
    heldout = loaded.episodes(target.weighted(loaded.project.tasks.heldout))
    progress.stage("target gradient", len(heldout))
    with run.timed("target gradient"):
        return target_gradient(
            configure_gradient(loaded.model, gradient, inner), loaded.params, heldout, progress.advance
        )


def _instances(loaded: Loaded, model: Bilevel, u: Tensor, run: RunWriter, progress: Progress) -> pd.DataFrame:
    progress.stage("scores", len(loaded.train))
    with run.timed("scores"):
        return instance_table(model, loaded.params, u, loaded.train, progress.advance, run.memory())


def _tables(instances: pd.DataFrame) -> Tables:
    return {"instances": instances, "tasks": task_table(instances), "images": image_table(instances)}


def _unsolved(loaded: Loaded) -> dict[str, Any]:
    """The report of a method without a curvature."""
    return {
        "curvature": "none",
        "solver": "none",
        "tasks": len(loaded.train),
        "device": str(loaded.device),
        "dtype": loaded.compute.dtype,
    }


def _tracin(
    loaded: Loaded, target: Target, trajectory: list[Snapshot], run: RunWriter, progress: Progress
) -> tuple[Tables, dict[str, Any]]:
    """``sum_c rate_c g_z(lambda_c) . v(lambda_c)`` (Pruthi et al. 2020, section 3.2), one pass a checkpoint."""
    final, loss = _target_gradient(loaded, target, "total", run, progress)
    instances = _instances(loaded, loaded.model, final, run, progress)
    score = np.zeros(len(instances))
    for number, snapshot in enumerate(trajectory, 1):
        there = loaded.with_params(snapshot.params)
        v, _ = _target_gradient(there, target, "total", run, progress)
        table = _instances(there, there.model, v, run, progress)
        score += snapshot.rate * table["score"].to_numpy()
        progress.advance(0, note=f"checkpoint {number} of {len(trajectory)}")
    check_scores(score)
    return _tables(instances.assign(score=score)), _unsolved(loaded) | {
        "target_loss": loss,
        "checkpoints": len(trajectory),
    }


def _self_influence(
    loaded: Loaded, estimator: Estimator, run: RunWriter, progress: Progress, runs: Runs
) -> tuple[Tables, dict[str, Any]]:
    if estimator.solve is None or estimator.solve.solver != "low-rank":
        raise UserError("Self-influence needs the low-rank solver.", "Use --solver low-rank.")
    model, settings = configure_gradient(loaded.model, estimator.gradient, estimator.inner), estimator.solve
    solver = Solver(loaded, model, settings, run, progress, runs)
    basis = solver.basis()
    solver.with_adaptive_damping(lambda: _whole(basis, solver))
    exact = min(len(basis.values), estimator.probes // 3)
    probes = estimator.probes - exact
    ways = directions(basis, solver.shift, exact, probes, settings.seed)
    tables = [_instances(loaded, model, way, run, progress) for way in ways]
    instances = tables[0]
    along = np.stack([table["score"].to_numpy() for table in tables])
    weight = instances["weight"].to_numpy()
    whole = _tables(instances.assign(score=(along**2).sum(0)))

    def squared(name: str, key: str, rows: np.ndarray) -> np.ndarray:
        """Of items that are several rows: products are added up before they are squared."""
        sums = pd.DataFrame((along * weight * rows).T).groupby(instances[key].to_numpy(), sort=False).sum()
        return (sums**2).sum(axis=1).loc[whole[name][key]].to_numpy()

    every, query = np.ones(len(instances)), (instances["role"] == "query").to_numpy()
    whole["images"]["score"] = squared("images", "image_id", every)
    for role, rows in (("score_query", query), ("score_support", ~query)):
        whole["images"][role] = squared("images", "image_id", rows)
    # A task's own gradient fits into memory chunk by chunk, so tasks need no sketch.
    sketched = squared("tasks", "task_id", query)
    inverse = basis.inverse(solver.shift)
    progress.stage("gradients of the tasks", len(loaded.train))
    gradients = task_gradients(model, loaded.params, loaded.train, on_chunk=progress.advance)
    value = (gradients * inverse(gradients)).sum(1).cpu().numpy()
    whole["tasks"]["score"] = value
    report = solver.report(_whole(basis, solver))
    chosen = np.linspace(0, len(loaded.train) - 1, _CHECKED_TASKS).astype(int)
    progress.stage("check against exact solves", len(chosen))
    solved = []
    for position in chosen:
        g = gradients[position]
        found = conjugate_gradients(solver.product, g, shift=solver.shift, tolerance=1e-3, iterations=200)
        solved.append(float(g @ found.x))
        progress.advance()
    report |= {
        "sketch_error": relative_error(sketched, value),
        "basis_error": relative_error(value[chosen], np.array(solved)),
        "probes": estimator.probes,
    }
    for table in whole.values():
        for column in ("score", "score_query", "score_support"):
            if column in table:
                table[column] = -table[column]
    return whole, report


def _whole(basis: Basis, solver: Solver) -> Solution:
    """A solve with the basis for a random vector: whether it is definite, and its residual."""
    generator = torch.Generator().manual_seed(1)
    like = basis.vectors[0]
    b = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
    return low_rank(solver.product, b, basis, shift=solver.shift)
