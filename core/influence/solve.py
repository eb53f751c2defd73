"""The inverse-curvature product for one question after another, with every curvature product remembered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.actions.compute import Loaded
from core.editing.cost import Cost
from core.influence.basis import cached_basis, read_basis
from core.influence.curvature import GAMMA, Curvature, task_gradients
from core.influence.methods import SolveSettings
from core.influence.scores import prediction_stats
from core.influence.solvers import (
    Basis,
    IndefiniteError,
    Product,
    Solution,
    conjugate_gradients,
    dual,
    lanczos,
    largest_eigenvalue,
    low_rank,
    neumann,
)
from core.maml.episodes import Chunk
from core.maml.objective import Bilevel
from core.maml.passes import passes_of
from core.maml.vectors import flatten
from core.runtime.errors import UserError
from core.runtime.files import content_hash
from core.runtime.progress import Progress
from core.workspace.runs import Run, Runs, RunWriter

_DAMPING_TASKS, _DAMPING_STEPS, _MOST_RAISES = 16, 5, 8
_MOST_BYTES = 4e9


class Solver:
    """``b -> (C + (delta + damping) I)^-1 b`` for a model as it was loaded.

    The size of the curvature, its basis and its gradients are computed once, at the first need.

    Attributes:
        cost: Of all that was asked for so far, whether it was computed now or remembered.

    Args:
        model: The model whose curvature it is: ``loaded.model``, or its first-order reading for direct gradients.
        run: Remembers every product.
        runs: Where the basis of the curvature is kept for other questions; None keeps it nowhere.
    """

    def __init__(
        self,
        loaded: Loaded,
        model: Bilevel,
        settings: SolveSettings,
        run: RunWriter,
        progress: Progress,
        runs: Runs | None = None,
    ) -> None:
        self.loaded, self.settings, self._model, self._run, self._progress = loaded, settings, model, run, progress
        self._runs, self.cost = runs, Cost()
        self._like = flatten(loaded.params)
        self.positions = self._positions()
        few = np.arange(len(loaded.train)) if self.positions is None else self.positions
        spread = few[:: -(-len(few) // _DAMPING_TASKS)]  # over the whole list, in whose order tasks may be alike
        progress.stage("size of the curvature", _DAMPING_STEPS)
        with run.timed("damping"):
            product = self._counted(Curvature(settings.curvature, model, loaded.params, loaded.train, spread))
            self.largest = largest_eigenvalue(
                product, self._like, iterations=_DAMPING_STEPS, on_iteration=lambda _: progress.advance()
            )
        self.damping = settings.damping * max(self.largest, 0.0)
        self._curvature = Curvature(settings.curvature, model, loaded.params, loaded.train, self.positions)
        self.product = self._counted(self._curvature)
        self.tasks = len(few)
        self._basis: Basis | None = None
        self._gradients: Tensor | None = None

    @property
    def shift(self) -> float:
        return self.loaded.model.delta + self.damping

    def basis(self) -> Basis:
        """The eigenbasis of the settings' rank, computed once for all questions where there is a place to keep it."""
        if self._basis is None:
            with self._run.timed("basis"):
                if self._runs is None:
                    self._basis = self._new_basis(self.product)
                else:
                    self._basis = read_basis(self.basis_run(), self._like)
                    self.cost += Cost(products=len(self._basis.values) * self.tasks)
        return self._basis

    def basis_run(self) -> Run:
        """The run that keeps the basis."""
        assert self._runs is not None
        return cached_basis(self._runs, self._basis_question(), self._for_others)

    def _new_basis(self, product: Product) -> Basis:
        self._progress.stage("basis of the curvature", self.settings.rank)
        return lanczos(product, self._like, self.settings.rank, on_iteration=lambda _: self._progress.advance())

    def _counted(self, curvature: Curvature) -> Product:
        product, known = _remembered(curvature, self._run), False

        def counted(p: Tensor) -> Tensor:
            nonlocal known
            if curvature.name != GAMMA:
                self.cost += Cost(products=curvature.tasks)
            elif not known:  # one number, found with the first product by first-order gradients
                known, self.cost = True, self.cost + Cost(gradients=curvature.tasks)
            return product(p)

        return counted

    def _for_others(self, run: RunWriter) -> tuple[Basis, Product]:
        product = _remembered(self._curvature, run)
        return self._new_basis(product), product

    def _basis_question(self) -> dict[str, Any]:
        """All that the basis depends on; the damping is not among it."""
        hashes, adaptation = self.loaded.project.hashes, self._model.adaptation
        return {
            **{name: hashes[name] for name in ("data", "tasks", "model")},
            "parameters": content_hash(self._like.cpu().numpy()),  # not always those of the model as it was loaded
            "curvature": self.settings.curvature,
            "positions": "all" if self.positions is None else content_hash(self.positions),
            "rank": self.settings.rank,
            "first_order": self._model.first_order,
            "inner": getattr(adaptation, "inverse", ""),
            "dtype": self.loaded.compute.dtype,
        }

    def with_adaptive_damping(self, attempt: Callable[[], Solution]) -> Solution:
        """Try, with the damping raised until the curvature is positive definite."""
        for _ in range(_MOST_RAISES):
            try:
                return attempt()
            except IndefiniteError as error:
                self.damping = max(2 * self.damping, -2 * error.curvature)
        raise UserError("The curvature stays indefinite however much it is damped.", "Use gauss-newton.")

    def solve(self, b: Tensor) -> Solution:
        """Solve for ``b`` ``(P,)``.

        Raises:
            UserError: the solve diverged, or did not reach its tolerance.
        """
        with self._run.timed("solve"):
            solution = self.with_adaptive_damping(lambda: self._attempt(b))
        if not solution.converged:
            advice = "Raise the rank or the damping." if self.settings.solver == "low-rank" else _ADVICE
            raise UserError(
                f"The solve stopped at a relative residual of {solution.residual:.1e} after {solution.iterations} "
                f"iterations; {self.settings.tolerance:.1e} was asked for.",
                advice,
            )
        return solution

    def report(self, solution: Solution) -> dict[str, Any]:
        """method, curvature, solver, tasks, damping (absolute and as a share of the largest eigenvalue), weight_decay,
        iterations, residual, smallest and largest Ritz value, device, dtype.
        """
        settings, asked = self.settings, self.settings.damping * max(self.largest, 0.0)
        return {
            "curvature": settings.curvature,
            "solver": settings.solver,
            "rank": settings.rank,
            "curvature_tasks": self.tasks,
            "subsample": settings.subsample if self.positions is not None else "all",
            "tasks": len(self.loaded.train),
            "damping": self.damping,
            "damping_share": self.damping / self.largest if self.largest > 0 else 0.0,
            "damping_raised": self.damping > asked,
            "weight_decay": self.loaded.model.delta,
            "iterations": solution.iterations,
            "residual": solution.residual,
            "smallest": solution.smallest,
            "largest": solution.largest,
            "device": str(self.loaded.device),
            "dtype": self.loaded.compute.dtype,
        }

    def _attempt(self, b: Tensor) -> Solution:
        settings, shift = self.settings, self.shift
        if settings.solver == "low-rank":
            return low_rank(self.product, b, self.basis(), shift=shift)
        if settings.solver == "dual":
            return self._dual(b)
        told = _residual_progress(self._progress, settings.tolerance)
        iterate = (
            partial(neumann, largest=self.largest)
            if settings.solver == "neumann"
            else partial(conjugate_gradients, precondition=self.basis().inverse(shift) if settings.rank else None)
        )
        return iterate(
            self.product,
            b,
            shift=shift,
            tolerance=settings.tolerance,
            iterations=settings.iterations,
            on_iteration=told,
        )

    def _dual(self, b: Tensor) -> Solution:
        if self._gradients is None:
            size = self.tasks * b.numel() * 8
            if size > _MOST_BYTES:
                raise UserError(
                    f"The dual solver keeps one gradient a task: {size / 1e9:.0f} GB for {self.tasks} tasks.",
                    "Use fewer curvature tasks, or the solver cg.",
                )
            self._progress.stage("gradients of the tasks", self.tasks)

            def gradients() -> list[np.ndarray]:
                found = task_gradients(
                    self._model, self.loaded.params, self.loaded.train, self.positions, self._progress.advance
                )
                return [found.cpu().numpy()]

            (kept,) = self._run.save_step(gradients)
            self._gradients = torch.from_numpy(kept).to(b)
            self.cost += Cost(gradients=self.tasks)
        return dual(self._gradients, b, shift=self.shift, scale=len(self.loaded.train) / self.tasks)

    def _positions(self) -> np.ndarray | None:
        """Positions of the tasks that the curvature is averaged over; None means all."""
        settings, n = self.settings, len(self.loaded.train)
        if not 0 < settings.curvature_tasks < n:
            return None
        if settings.subsample == "random":
            return np.sort(np.random.default_rng(settings.seed).choice(n, settings.curvature_tasks, replace=False))
        self._progress.stage(f"{settings.subsample} of the tasks", n)
        loss, entropy, _ = self._run.save_step(lambda: list(difficulty(self.loaded, self._progress)))
        self.cost += Cost(evaluations=n)
        measure = loss if settings.subsample == "difficulty" else entropy
        return np.sort(np.argsort(-measure, kind="stable")[: settings.curvature_tasks])


def _remembered(curvature: Product, run: RunWriter) -> Product:
    def product(p: Tensor) -> Tensor:
        (kept,) = run.save_step(lambda: [curvature(p).cpu().numpy()])
        return torch.from_numpy(kept).to(p)

    return product


_ADVICE = "Raise the damping or the number of iterations."


def difficulty(loaded: Loaded, progress: Progress) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean adapted loss, predictive entropy and margin of every training task's query rows, ``(N,)`` each, in nats."""
    found = np.zeros((3, len(loaded.train)))
    passes = passes_of(loaded.model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        return [passes.query_logits(loaded.params, chunk.task), chunk.task.yq]

    for at, (logits, labels) in loaded.train.collected(of_chunk, on_chunk=progress.advance):
        loss, margin, entropy, _ = prediction_stats(logits, labels)
        found[:, at] = loss.mean(-1), entropy.mean(-1), margin.mean(-1)
    return found[0], found[1], found[2]


def _residual_progress(progress: Progress, tolerance: float) -> Any:
    """A solve is as far as its residual has fallen, in per cent on a logarithmic scale."""
    progress.stage("solve", 100)
    reached = 0

    def report(iteration: int, residual: float) -> None:
        nonlocal reached
        now = min(100, max(reached, round(100 * np.log(max(residual, 1e-300)) / np.log(min(tolerance, 0.999)))))
        progress.advance(now - reached, note=f"iteration {iteration}, residual {residual:.1e}")
        reached = now

    return report
