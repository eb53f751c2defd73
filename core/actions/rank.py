"""Rank all training tasks, instances and images by their influence on an evaluation target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.actions.compute import Compute, Loaded
from core.actions.evaluate import evaluation
from core.errors import UserError
from core.influence.curvature import Curvature
from core.influence.scores import image_table, instance_table, task_table
from core.influence.solvers import IndefiniteError, Solution, conjugate_gradients, largest_eigenvalue
from core.influence.targets import Target, target_gradient
from core.progress import Progress
from core.workspace.runs import Run, Work
from core.workspace.workspace import Workspace

KIND = "rank"
ENGINE = 2  # raised whenever the engine's answers change, so that older runs are not taken for newer ones
_DAMPING_TASKS, _DAMPING_STEPS, _MOST_RAISES = 16, 5, 8


@dataclass(frozen=True)
class SolveSettings:
    """How the inverse-curvature product is solved.

    Attributes:
        curvature: ``gauss-newton`` or ``exact``.
        curvature_tasks: The curvature is averaged over this many tasks, drawn at random; 0 means all.
        damping: Added to the curvature, as a share of its largest eigenvalue. Raised on its own where the
            curvature is indefinite, which the report then says.
        tolerance: Relative residual to reach.
        iterations: Most curvature products.
        seed: Of the draw of tasks.
    """

    curvature: str = "gauss-newton"
    curvature_tasks: int = 32
    damping: float = 0.1
    tolerance: float = 1e-2
    iterations: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.damping, self.curvature_tasks, self.seed) < 0 or self.tolerance <= 0 or self.iterations < 1:
            raise UserError("Damping, curvature tasks and seed must be 0 or more, tolerance and iterations above 0.")


def ranking(workspace: Workspace, target: Target, settings: SolveSettings, compute: Compute, progress: Progress) -> Run:
    """Scores against ``target``, positive = helpful, in nats of the target's loss that removal would add.

    The run holds ``instances.parquet``, ``tasks.parquet``, ``images.parquet`` (:mod:`core.influence.scores`) and
    ``solver.json`` (:func:`solve`, the target's loss, and the stationarity of the model).
    """
    project = workspace.project()
    weighted = target.weighted(project.tasks.heldout)
    question = {
        **project.hashes,
        "engine": ENGINE,
        "target": str(target),
        **asdict(settings),
        "dtype": compute.dtype,
    }

    def work(run: Work) -> None:
        measured = evaluation(workspace, compute, progress).json("summary.json")
        loaded = Loaded(project, compute)
        heldout = loaded.episodes(weighted)
        progress.stage("target gradient", len(heldout))
        with run.timed("target gradient"):
            v, loss = target_gradient(loaded.model, loaded.params, heldout, progress.advance)
        solution, report = solve(loaded, v, settings, run, progress)
        progress.stage("scores", len(loaded.train))
        with run.timed("scores"):
            instances = instance_table(
                loaded.model, loaded.params, solution.x, loaded.train, progress.advance, run.remember
            )
        run.write_table("instances.parquet", instances)
        run.write_table("tasks.parquet", task_table(instances))
        run.write_table("images.parquet", image_table(instances))
        report |= {"target": str(target), "target_loss": loss, "stationarity": measured["stationarity"]}
        run.write_json("solver.json", report)

    return workspace.runs.answer(KIND, question, work)


def solve(
    loaded: Loaded, b: Tensor, settings: SolveSettings, run: Work, progress: Progress
) -> tuple[Solution, dict[str, Any]]:
    """``(C + (delta + damping) I)^-1 b``, remembering every product.

    Returns:
        The solution and its report: method, curvature, tasks, damping (absolute and as a share of the largest
        eigenvalue), weight_decay, iterations, residual, smallest and largest Ritz value, device, dtype.

    Raises:
        UserError: the solve did not reach its tolerance.
    """
    positions = curvature_positions(len(loaded.train), settings)

    def operator(where: np.ndarray | None) -> Curvature:
        return Curvature(settings.curvature, loaded.model, loaded.params, loaded.train, where)

    def remembered(curvature: Curvature) -> Any:
        def product(p: Tensor) -> Tensor:
            (kept,) = run.remember(lambda: [curvature(p).cpu().numpy()])
            return torch.from_numpy(kept).to(p)

        return product

    few = positions if positions is not None else np.arange(len(loaded.train))
    spread = few[:: -(-len(few) // _DAMPING_TASKS)]  # over the whole list, in whose order tasks may be alike
    with run.timed("damping"):
        progress.stage("size of the curvature", _DAMPING_STEPS)
        largest = largest_eigenvalue(
            remembered(operator(spread)), b, iterations=_DAMPING_STEPS, on_iteration=progress.advance
        )
    damping = asked = settings.damping * largest
    product = remembered(operator(positions))
    with run.timed("solve"):
        for _ in range(_MOST_RAISES):
            try:
                solution = conjugate_gradients(
                    product,
                    b,
                    shift=loaded.model.delta + damping,
                    tolerance=settings.tolerance,
                    iterations=settings.iterations,
                    on_iteration=_residual_progress(progress, settings.tolerance),
                )
                break
            except IndefiniteError as error:
                damping = max(2 * damping, -2 * error.curvature)
        else:
            raise UserError("The curvature stays indefinite however much it is damped.", "Use gauss-newton.")
    if not solution.converged:
        raise UserError(
            f"The solve stopped at a relative residual of {solution.residual:.1e} after {solution.iterations} "
            f"iterations; {settings.tolerance:.1e} was asked for.",
            "Raise the damping or the number of iterations.",
        )
    return solution, {
        "method": f"{settings.curvature} curvature, conjugate gradients, one pass over all instances",
        "curvature": settings.curvature,
        "curvature_tasks": len(few),
        "tasks": len(loaded.train),
        "damping": damping,
        "damping_share": damping / largest if largest else 0.0,
        "damping_raised": damping > asked,
        "weight_decay": loaded.model.delta,
        "iterations": solution.iterations,
        "residual": solution.residual,
        "smallest": solution.smallest,
        "largest": solution.largest,
        "device": str(loaded.device),
        "dtype": loaded.compute.dtype,
    }


def curvature_positions(n: int, settings: SolveSettings) -> np.ndarray | None:
    """Positions of the tasks that the curvature is averaged over; None means all."""
    if not 0 < settings.curvature_tasks < n:
        return None
    return np.sort(np.random.default_rng(settings.seed).choice(n, settings.curvature_tasks, replace=False))


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
