"""The inverse-curvature product for one question after another, with every curvature product remembered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.actions.compute import Loaded
from core.errors import UserError
from core.influence.curvature import Curvature, task_gradients
from core.influence.methods import SolveSettings
from core.influence.scores import look
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
from core.progress import Progress
from core.workspace.runs import Work

_DAMPING_TASKS, _DAMPING_STEPS, _MOST_RAISES = 16, 5, 8
_MOST_BYTES = 4e9


class Solver:
    """``b -> (C + (delta + damping) I)^-1 b`` for a model as it was loaded.

    The size of the curvature, its basis and its gradients are computed once, at the first need.

    Args:
        model: The model whose curvature it is: ``loaded.model``, or its first-order reading for direct gradients.
        run: Remembers every product.
    """

    def __init__(self, loaded: Loaded, model: Bilevel, settings: SolveSettings, run: Work, progress: Progress) -> None:
        self.loaded, self.settings, self._model, self._run, self._progress = loaded, settings, model, run, progress
        self._like = flatten(loaded.params)
        self.positions = self._positions()
        few = np.arange(len(loaded.train)) if self.positions is None else self.positions
        spread = few[:: -(-len(few) // _DAMPING_TASKS)]  # over the whole list, in whose order tasks may be alike
        progress.stage("size of the curvature", _DAMPING_STEPS)
        with run.timed("damping"):
            product = self._remembered(Curvature(settings.curvature, model, loaded.params, loaded.train, spread))
            self.largest = largest_eigenvalue(
                product, self._like, iterations=_DAMPING_STEPS, on_iteration=lambda _: progress.advance()
            )
        self.damping = settings.damping * max(self.largest, 0.0)
        self.product = self._remembered(
            Curvature(settings.curvature, model, loaded.params, loaded.train, self.positions)
        )
        self.tasks = len(few)
        self._basis: Basis | None = None
        self._gradients: Tensor | None = None

    @property
    def shift(self) -> float:
        return self.loaded.model.delta + self.damping

    def basis(self) -> Basis:
        """The eigenbasis of the settings' rank."""
        if self._basis is None:
            self._progress.stage("basis of the curvature", self.settings.rank)
            with self._run.timed("basis"):
                self._basis = lanczos(
                    self.product,
                    self._like,
                    self.settings.rank,
                    on_iteration=lambda _: self._progress.advance(),
                )
        return self._basis

    def raised(self, attempt: Callable[[], Solution]) -> Solution:
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
            solution = self.raised(lambda: self._attempt(b))
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

            (kept,) = self._run.remember(gradients)
            self._gradients = torch.from_numpy(kept).to(b)
        return dual(self._gradients, b, shift=self.shift, scale=len(self.loaded.train) / self.tasks)

    def _positions(self) -> np.ndarray | None:
        """Positions of the tasks that the curvature is averaged over; None means all."""
        settings, n = self.settings, len(self.loaded.train)
        if not 0 < settings.curvature_tasks < n:
            return None
        if settings.subsample == "random":
            return np.sort(np.random.default_rng(settings.seed).choice(n, settings.curvature_tasks, replace=False))
        self._progress.stage(f"{settings.subsample} of the tasks", n)
        loss, entropy, _ = self._run.remember(lambda: list(difficulty(self.loaded, self._progress)))
        measure = loss if settings.subsample == "difficulty" else entropy
        return np.sort(np.argsort(-measure, kind="stable")[: settings.curvature_tasks])

    def _remembered(self, curvature: Product) -> Product:
        def product(p: Tensor) -> Tensor:
            (kept,) = self._run.remember(lambda: [curvature(p).cpu().numpy()])
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
        loss, margin, entropy, _ = look(logits, labels)
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
