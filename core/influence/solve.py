"""The damped inverse-curvature product of a loaded model, with every curvature product saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.influence.basis import read_basis, stored_basis
from core.influence.curvature import GAMMA, Curvature, task_gradients
from core.influence.scores import task_difficulty
from core.influence.settings import SolveSettings
from core.influence.solvers import (
    INDEFINITE,
    NOT_CONVERGED,
    Basis,
    IndefiniteError,
    Product,
    Solution,
    SolveError,
    conjugate_gradients,
    dual,
    lanczos,
    low_rank,
    neumann,
)
from core.maml.cost import Cost
from core.maml.loaded import Loaded
from core.maml.objective import Bilevel
from core.maml.storage import ResultStore, SaveStep, StepWriter
from core.maml.vectors import flatten
from core.runtime.errors import UserError
from core.runtime.hashing import content_hash
from core.runtime.progress import Progress

ITERATIONS_ADVICE = "Raise the damping or the number of iterations."
LOW_RANK_ADVICE = "Raise the rank or the damping."
ROUNDING_ADVICE = "Rounding errors limit it: compute in float64, or raise the damping or the tolerance."
_SCALE_TASKS, _SCALE_STEPS = 16, 5  # tasks and Lanczos steps of the estimate of the largest eigenvalue
_MAX_DAMPING_INCREASES = 8
_DIAGNOSTICS = ("iterations", "products", "residual", "replacements", "stagnated", "smallest", "largest")
_DUAL_BYTES = 4e9  # size limit of the task gradients of the dual solver


class Solver:
    """A solver for ``b -> (C + (delta + damping) I)^-1 b`` that computes the scale and the basis of C once.

    Attributes:
        cost: Passes over tasks so far, whether they were computed now or read from saved steps.
        positions, tasks: Positions (None means all) and number of the tasks that the curvature is averaged over.
        largest: Largest eigenvalue of C, estimated on a few tasks; damping is a share of it.
        damping: Absolute damping; raised where the curvature turns out to be indefinite.

    Args:
        model: The model whose curvature is C: ``loaded.model`` or a variant of it
            (:func:`core.influence.curvature.configure_gradient`).
        steps: Saves every product, so that an interrupted solve resumes.
        store: Where the basis of the curvature is stored for other solves; None stores it nowhere.
    """

    def __init__(
        self,
        loaded: Loaded,
        model: Bilevel,
        settings: SolveSettings,
        steps: StepWriter,
        progress: Progress,
        store: ResultStore | None = None,
    ) -> None:
        self.loaded, self.settings, self._model, self._steps, self._progress = loaded, settings, model, steps, progress
        self._store, self.cost = store, Cost()
        self._like = flatten(loaded.params)
        self.positions = self._positions()
        positions = np.arange(len(loaded.train)) if self.positions is None else self.positions
        sample = positions[:: -(-len(positions) // _SCALE_TASKS)]  # neighbours in the list may resemble each other
        progress.stage("largest eigenvalue of the curvature", _SCALE_STEPS)
        with steps.timed("damping"):
            product = self._counted(Curvature(settings.curvature, model, loaded.params, loaded.train, sample))
            scale = lanczos(product, self._like, _SCALE_STEPS, on_iteration=lambda _: progress.advance())
            self.largest = float(scale.values[-1])
        self.damping = settings.damping * max(self.largest, 0.0)
        self._curvature = Curvature(settings.curvature, model, loaded.params, loaded.train, self.positions)
        self.product = self._counted(self._curvature)
        self.tasks = len(positions)
        self._basis: Basis | None = None
        self._gradients: Tensor | None = None

    @property
    def shift(self) -> float:
        """Return weight decay plus damping."""
        return self.loaded.model.delta + self.damping

    def basis(self) -> Basis:
        """Return the eigenbasis of the settings' rank, from the store if there is one, else computed once."""
        if self._basis is None:
            with self._steps.timed("basis"):
                if self._store is None:
                    self._basis = self._new_basis(self.product)
                else:
                    self._basis = read_basis(self.basis_folder(), self._like)
                    self.cost += Cost(products=len(self._basis.values) * self.tasks)
        return self._basis

    def basis_folder(self) -> Path:
        """Return the folder of the store that holds the basis; there must be a store."""
        assert self._store is not None

        def compute(steps: StepWriter) -> tuple[Basis, Product]:
            product = with_saved_steps(self._curvature, steps.save_step)
            return self._new_basis(product), product

        return stored_basis(self._store, self.basis_key(), compute)

    def _new_basis(self, product: Product) -> Basis:
        self._progress.stage("basis of the curvature", self.settings.rank)
        return lanczos(product, self._like, self.settings.rank, on_iteration=lambda _: self._progress.advance())

    def _counted(self, curvature: Curvature) -> Product:
        product, gamma_is_known = with_saved_steps(curvature, self._steps.save_step), False

        def counted(p: Tensor) -> Tensor:
            nonlocal gamma_is_known
            if curvature.name != GAMMA:
                self.cost += Cost(products=curvature.tasks)
            elif not gamma_is_known:  # one number, computed by first-order gradients with the first product
                gamma_is_known, self.cost = True, self.cost + Cost(gradients=curvature.tasks)
            return product(p)

        return counted

    def basis_key(self) -> dict[str, Any]:
        """Return everything that the basis depends on; damping is not part of it."""
        return {
            **{name: self.loaded.hashes[name] for name in ("data", "tasks", "model")},
            "parameters": content_hash(self._like.cpu().numpy()),  # not the model's after Loaded.with_params
            "curvature": self.settings.curvature,
            "positions": "all" if self.positions is None else content_hash(self.positions),
            "rank": self.settings.rank,
            "first_order": self._model.first_order,
            "inner": getattr(self._model.adaptation, "inverse", ""),
            "dtype": self.loaded.compute.dtype,
        }

    def with_adaptive_damping(self, attempt: Callable[[], Solution]) -> Solution:
        """Call ``attempt`` and raise the damping until it succeeds; SolveError if it does not after 8 times."""
        for _ in range(_MAX_DAMPING_INCREASES):
            try:
                return attempt()
            except IndefiniteError as error:
                self.damping = max(2 * self.damping, -2 * error.curvature)
        fault = f"The curvature is indefinite even with a damping of {self.damping:.3g}."
        raise SolveError(INDEFINITE, fault, "Use gauss-newton.")

    def solve(self, b: Tensor) -> Solution:
        """Solve for ``b`` ``(P,)``; raise SolveError if the solve diverges or misses its tolerance."""
        with self._steps.timed("solve"):
            solution = self.with_adaptive_damping(lambda: self._attempt(b))
        if not solution.converged:
            advice = LOW_RANK_ADVICE if self.settings.solver == "low-rank" else ITERATIONS_ADVICE
            raise SolveError(
                NOT_CONVERGED,
                f"The solve stopped at a relative residual of {solution.residual:.1e} after {solution.iterations} "
                f"iterations, above the tolerance of {self.settings.tolerance:.1e}.",
                ROUNDING_ADVICE if solution.stagnated else advice,
            )
        return solution

    def report(self, solution: Solution) -> dict[str, Any]:
        """Return the settings and diagnostics of a solve, as ``solver.json`` holds them.

        ``damping`` is absolute, ``damping_share`` relative to the largest eigenvalue; the diagnostics are those of
        :class:`Solution`.
        """
        settings, initial_damping = self.settings, self.settings.damping * max(self.largest, 0.0)
        return {
            "curvature": settings.curvature,
            "solver": settings.solver,
            "rank": settings.rank,
            "curvature_tasks": self.tasks,
            "subsample": settings.subsample if self.positions is not None else "all",
            "tasks": len(self.loaded.train),
            "damping": self.damping,
            "damping_share": self.damping / self.largest if self.largest > 0 else 0.0,
            "damping_raised": self.damping > initial_damping,
            "weight_decay": self.loaded.model.delta,
            **{name: getattr(solution, name) for name in _DIAGNOSTICS},
            "device": str(self.loaded.device),
            "dtype": self.loaded.compute.dtype,
        }

    def _attempt(self, b: Tensor) -> Solution:
        settings, shift = self.settings, self.shift
        if settings.solver == "low-rank":
            return low_rank(self.product, b, self.basis(), shift=shift)
        if settings.solver == "dual":
            return self._dual(b)
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
            on_iteration=_residual_progress(self._progress, settings.tolerance),
        )

    def _dual(self, b: Tensor) -> Solution:
        if self._gradients is None:
            size = self.tasks * b.numel() * 8
            if size > _DUAL_BYTES:
                raise UserError(
                    f"The dual solver stores one gradient per task: {size / 1e9:.0f} GB for {self.tasks} tasks.",
                    "Use fewer curvature tasks, or the solver cg.",
                )
            self._progress.stage("gradients of the tasks", self.tasks)
            arguments = (self._model, self.loaded.params, self.loaded.train, self.positions, self._progress.advance)
            (gradients,) = self._steps.save_step(lambda: [task_gradients(*arguments).cpu().numpy()])
            self._gradients = torch.from_numpy(gradients).to(b)
            self.cost += Cost(gradients=self.tasks)
        return dual(self._gradients, b, shift=self.shift, scale=len(self.loaded.train) / self.tasks)

    def _positions(self) -> np.ndarray | None:
        settings, n = self.settings, len(self.loaded.train)
        if not 0 < settings.curvature_tasks < n:
            return None
        if settings.subsample == "random":
            return np.sort(np.random.default_rng(settings.seed).choice(n, settings.curvature_tasks, replace=False))
        self._progress.stage(f"{settings.subsample} of the tasks", n)
        loss, entropy, _ = self._steps.save_step(lambda: list(task_difficulty(self.loaded, self._progress)))
        self.cost += Cost(evaluations=n)
        measure = loss if settings.subsample == "difficulty" else entropy
        return np.sort(np.argsort(-measure, kind="stable")[: settings.curvature_tasks])


def with_saved_steps(curvature: Product, save_step: SaveStep) -> Product:
    """Return the product with a curvature, each of which is a step that an interrupted attempt need not repeat."""

    def product(p: Tensor) -> Tensor:
        (values,) = save_step(lambda: [curvature(p).cpu().numpy()])
        return torch.from_numpy(values).to(p)

    return product


def _residual_progress(progress: Progress, tolerance: float) -> Any:
    """Return a callback that reports a solve's progress: the decrease of its residual, on a logarithmic scale."""
    progress.stage("solve", 100)
    percent = 0

    def report(iteration: int, residual: float) -> None:
        nonlocal percent
        decrease = np.log(max(residual, 1e-300)) / np.log(min(tolerance, 0.999))
        current = min(100, max(percent, round(100 * decrease)))
        progress.advance(current - percent, note=f"iteration {iteration}, residual {residual:.1e}")
        percent = current

    return report
