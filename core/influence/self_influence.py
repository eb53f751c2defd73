"""Self-influence: how much removing an item raises its own loss, ``g^T (C + shift I)^-1 g``, for every item at once.

With ``B B^T = (C + shift I)^-1`` and random vectors r of independent unit variance, ``E (g . B r)^2`` is that value
(Hutchinson 1989). One pass of scores along ``u = B r`` gives ``g . u`` of every task and row, so that no gradient of a
row is ever formed. B is made of a low-rank eigenbasis of C (:class:`core.influence.solvers.Basis`): what lies in the
basis is exact, one pass per vector; the rest is sketched.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.influence.basis import residual_probe
from core.influence.curvature import configure_gradient, task_gradients
from core.influence.ranking import Ranking, score_rows
from core.influence.settings import Estimator
from core.influence.solve import Solver
from core.influence.solvers import Basis, conjugate_gradients, low_rank, probe_vectors
from core.maml.loaded import Loaded
from core.maml.storage import ResultStore, StepWriter
from core.runtime.errors import UserError
from core.runtime.progress import Progress

_CHECKED_TASKS, _CHECK_TOLERANCE, _CHECK_ITERATIONS = 4, 1e-3, 200
_PASSES_PER_EXACT = 3  # one pass in three is exact along a vector of the basis; the others sketch what it leaves out


def self_influence_ranking(
    loaded: Loaded, estimator: Estimator, steps: StepWriter, progress: Progress, store: ResultStore | None = None
) -> Ranking:
    """Rank by minus the self-influence, so that the most suspicious items come first.

    The report holds the median relative errors of the sketch and of the basis, each measured on tasks.

    Raises:
        UserError: the solver is not ``low-rank``.
    """
    if estimator.solve is None or estimator.solve.solver != "low-rank":
        raise UserError("Self-influence needs the low-rank solver.", "Use --solver low-rank.")
    model = configure_gradient(loaded.model, estimator.gradient, estimator.inner)
    solver = Solver(loaded, model, estimator.solve, steps, progress, store)
    basis = solver.basis()
    b = residual_probe(basis.vectors[0])  # shows whether C is definite, and the residual
    solver.with_adaptive_damping(lambda: low_rank(solver.product, b, basis, shift=solver.shift))
    exact = min(len(basis.values), estimator.probes // _PASSES_PER_EXACT)
    rows = directions(basis, solver.shift, exact, estimator.probes - exact, estimator.solve.seed)
    tables = [score_rows(loaded, model, direction, steps, progress) for direction in rows]
    products = np.stack([table["score"].to_numpy() for table in tables])
    ranking = Ranking.from_instances(tables[0].assign(score=(products**2).sum(0)), {})
    query = (tables[0]["role"] == "query").to_numpy()
    for column, included in (("score", np.ones_like(query)), ("score_query", query), ("score_support", ~query)):
        sums = squared_sums(products, tables[0], "image_id", included)
        ranking.images[column] = sums.loc[ranking.images["image_id"]].to_numpy()
    # A task's own gradient fits into memory chunk by chunk, so tasks need no sketch.
    sketched = squared_sums(products, tables[0], "task_id", query).loc[ranking.tasks["task_id"]].to_numpy()
    progress.stage("gradients of the tasks", len(loaded.train))
    gradients = task_gradients(model, loaded.params, loaded.train, on_chunk=progress.advance)
    value = (gradients * basis.inverse(solver.shift)(gradients)).sum(1).cpu().numpy()
    ranking.tasks["score"] = value
    report = solver.report(low_rank(solver.product, b, basis, shift=solver.shift)) | {
        "sketch_error": relative_error(sketched, value),
        "basis_error": _basis_error(solver, gradients, value, progress),
        "probes": estimator.probes,
    }
    for table in ranking.tables.values():
        for column in {"score", "score_query", "score_support"} & set(table):
            table[column] = -table[column]
    return replace(ranking, report=report)


def directions(basis: Basis, shift: float, exact: int, probes: int, seed: int = 0) -> Tensor:
    """Return ``(exact + probes, P)``: the squared products of a gradient with these rows sum to its self-influence.

    The ``exact`` vectors of largest eigenvalue get separate directions; ``probes`` random ones serve all the rest.
    """
    vectors = basis.vectors[len(basis.values) - exact :]
    root = basis.inverse(shift, power=0.5)
    noise = probe_vectors((probes, vectors.shape[1]), vectors, seed)
    noise = noise - (noise @ vectors.T) @ vectors
    return torch.cat([root(vectors), root(noise) / max(probes, 1) ** 0.5])


def squared_sums(products: np.ndarray, instances: pd.DataFrame, key: str, included: np.ndarray) -> pd.Series:
    """Return the self-influence of items that are several rows, by ``key``: products are summed before squaring.

    The products are ``(directions, rows)``; ``included`` ``(rows,)`` says which rows count.
    """
    weighted = products * (instances["weight"].to_numpy() * included)
    sums = pd.DataFrame(weighted.T).groupby(instances[key].to_numpy(), sort=False).sum()
    return (sums**2).sum(axis=1)


def relative_error(estimated: np.ndarray, exact: np.ndarray) -> float:
    """Return the median over items of ``|estimated - exact| / exact``."""
    return float(np.median(np.abs(estimated - exact) / exact))


def _basis_error(solver: Solver, gradients: Tensor, value: np.ndarray, progress: Progress) -> float:
    """Return the error of the low-rank self-influence of a few tasks against conjugate gradients."""
    chosen = np.linspace(0, len(gradients) - 1, _CHECKED_TASKS).astype(int)
    progress.stage("check against exact solves", len(chosen))
    exact = []
    for g in gradients[torch.from_numpy(chosen)]:
        solution = conjugate_gradients(
            solver.product, g, shift=solver.shift, tolerance=_CHECK_TOLERANCE, iterations=_CHECK_ITERATIONS
        )
        exact.append(float(g @ solution.x))
        progress.advance()
    return relative_error(value[chosen], np.array(exact))
