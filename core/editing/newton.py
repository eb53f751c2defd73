"""One step of Newton's method on the objective of the changed tasks, within a trust region.

With f the mean query loss of the remaining tasks after the changes, plus their share of the weight decay, the step is
``-(C + delta / N I + mu I)^-1 g``: g the gradient of f, C its Gauss-Newton curvature without the decay. mu is the
multiplier of a trust region (Moré and Sorensen 1983): every mu gives the minimiser of the quadratic model within some
radius, and a larger mu gives a smaller radius. One Lanczos recurrence from g serves all mu. The step that lowers f most
is taken; if none lowers f, the parameters are unchanged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.editing.settings import NewtonSettings
from core.influence.curvature import Curvature
from core.influence.solve import with_saved_steps
from core.influence.solvers import Product, lanczos
from core.maml.backbone import Params
from core.maml.cost import Cost
from core.maml.episodes import Chunk, Episodes, OnChunk
from core.maml.objective import Bilevel
from core.maml.passes import passes_of
from core.maml.storage import SaveStep, UnsavedSteps
from core.maml.training import objective_gradient
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.runtime.progress import Progress

SHARES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Multipliers that are tried, as shares of the largest Ritz value; together they span all useful radii."""
GRADIENT_STAGE = "gradient of the changed tasks"
CURVATURE_STAGE = "curvature of the changed tasks"
TRIAL_STAGE = "trial steps"


class Krylov:
    """A space spanned by g, C g, C C g, ..., in which ``(C + shift I)^-1 g`` is a small matrix product for any shift.

    The ``product`` is ``v -> C v`` with C symmetric, ``gradient`` is g ``(P,)``, not 0; the dimension is ``products``.
    """

    def __init__(self, product: Product, gradient: Tensor, products: int) -> None:
        self.basis = lanczos(product, gradient, products, start=gradient)
        self.smallest, self.largest = float(self.basis.values[0]), float(self.basis.values[-1])
        self._coefficients = (self.basis.vectors @ gradient).double().cpu().numpy()

    def step(self, shift: float) -> Tensor:
        """Return ``-(C + shift I)^-1 g``, ``(P,)``, projected on the space."""
        weights = -self._coefficients / (self.basis.values + shift)
        return torch.from_numpy(weights).to(self.basis.vectors) @ self.basis.vectors

    def decrease(self, shift: float, decay: float) -> float:
        """Return by how much ``step(shift)`` lowers the quadratic model ``g x + x (C + decay I) x / 2``."""
        values, squares = self.basis.values, self._coefficients**2
        linear_term = squares / (values + shift)
        quadratic_term = squares * (values + decay) / (values + shift) ** 2
        return float((linear_term - quadratic_term / 2).sum())


@dataclass(frozen=True)
class NewtonEdit:
    """The result of a Newton step, and the cost of its passes.

    Attributes:
        report: taken (False: no trial lowered the objective, the parameters are unchanged), share (mu over the
            largest Ritz value), shift (mu), relative_step (norm of the step over that of the parameters), objective
            (before), predicted and actual (decrease, by the quadratic model and by f), ratio (actual over predicted),
            gradient_norm, smallest and largest (Ritz values), products, gradient_tasks, curvature_tasks, tried (share,
            relative_step, predicted, actual of every trial; an actual decrease of None is not finite).
    """

    params: Params
    report: dict[str, Any]
    cost: Cost


def newton_edit(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    settings: NewtonSettings | None = None,
    progress: Progress | None = None,
    save_step: SaveStep = UnsavedSteps().save_step,
) -> NewtonEdit:
    """Take one step from ``params`` on the objective of ``episodes``, the tasks after the changes.

    Args:
        save_step: Stores the gradient, every product and every trial, so that an interrupted step resumes.

    Raises:
        UserError: the gradient or a product is not finite.
    """
    settings, progress = settings or NewtonSettings(), progress or Progress()
    lam, n = flatten(params), len(episodes)
    decay = model.delta / n
    sampled = _sample(n, settings.gradient_tasks, settings.seed)
    curvature_sample = _sample(n, settings.curvature_tasks, settings.seed)

    progress.stage(GRADIENT_STAGE, len(sampled))

    def gradient_and_loss() -> list[np.ndarray]:
        slope, loss = objective_gradient(model, params, episodes, sampled, progress.advance)
        return [(flatten(slope) / len(sampled)).cpu().numpy(), np.array(loss / len(sampled))]

    slope, loss = save_step(gradient_and_loss)
    gradient = torch.from_numpy(slope).to(lam) + decay * lam
    objective_before, norm = float(loss) + _weight_decay_term(decay, lam), float(gradient.norm())
    if not np.isfinite([objective_before, norm]).all():
        raise UserError("The gradient of the changed tasks is not finite.", "Check the model; try float64.")
    report: dict[str, Any] = {
        **asdict(settings),
        "gradient_tasks": len(sampled),
        "curvature_tasks": len(curvature_sample),
        "objective": objective_before,
        "gradient_norm": norm,
        "taken": False,
        "share": None,
        "shift": None,
        "relative_step": 0.0,
        "predicted": 0.0,
        "actual": 0.0,
        "ratio": None,
        "products": 0,
        "smallest": 0.0,
        "largest": 0.0,
        "tried": [],
    }
    if norm == 0:
        return NewtonEdit(params, report, Cost(gradients=len(sampled)))

    progress.stage(CURVATURE_STAGE, settings.products * len(curvature_sample))
    curvature = Curvature("gauss-newton", model, params, episodes, curvature_sample, progress.advance)
    product = with_saved_steps(lambda v: curvature(v) / n, save_step)
    space = Krylov(product, gradient, settings.products)
    products = len(space.basis.values)
    report |= {"products": products, "smallest": space.smallest, "largest": space.largest}
    cost = Cost(len(sampled), products * len(curvature_sample))
    if space.largest <= 0:  # no positive curvature bounds the length of a step
        return NewtonEdit(params, report, cost)

    progress.stage(TRIAL_STAGE, len(SHARES) * len(sampled))
    trials: list[dict[str, Any]] = []
    for share in SHARES:
        step = space.step(share * space.largest + decay)
        trial_params = unflatten(lam + step, params)
        (value,) = save_step(partial(_trial, model, trial_params, episodes, sampled, progress.advance))
        actual = objective_before - (float(value) + _weight_decay_term(decay, lam + step))
        trials.append(
            {
                "share": share,
                "relative_step": float(step.norm() / lam.norm()),
                "predicted": space.decrease(share * space.largest + decay, decay),
                "actual": actual if np.isfinite(actual) else None,
            }
        )
    cost += Cost(evaluations=len(SHARES) * len(sampled))
    report["tried"] = trials
    best = max(trials, key=lambda trial: -np.inf if trial["actual"] is None else trial["actual"])
    if best["actual"] is None or best["actual"] <= 0:
        return NewtonEdit(params, report, cost)
    shift = best["share"] * space.largest
    report |= {**best, "taken": True, "shift": shift, "ratio": best["actual"] / best["predicted"]}
    return NewtonEdit(unflatten(lam + space.step(shift + decay), params), report, cost)


def _trial(
    model: Bilevel, params: Params, episodes: Episodes, positions: np.ndarray, on_chunk: OnChunk
) -> list[np.ndarray]:
    """Return :func:`mean_loss` as an array; infinite where the adaptation fails from these parameters."""
    try:
        return [np.array(mean_loss(model, params, episodes, positions, on_chunk))]
    except UserError:
        return [np.array(np.inf)]


def mean_loss(model: Bilevel, params: Params, episodes: Episodes, positions: np.ndarray, on_chunk: OnChunk) -> float:
    """Return the mean query loss of the tasks at ``positions`` after adaptation, in nats, without weight decay."""
    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        logits, task = passes.query_logits(params, chunk.task), chunk.task
        rows = F.cross_entropy(logits.flatten(0, 1), task.yq.flatten(), reduction="none")
        return [(rows.view_as(task.q) * task.q).mean(1).double().sum()]

    return float(episodes.sum_chunks(of_chunk, positions, on_chunk)[0]) / len(positions)


def _weight_decay_term(decay: float, lam: Tensor) -> float:
    return decay / 2 * float(lam.double().square().sum())


def _sample(n: int, size: int, seed: int) -> np.ndarray:
    """Return positions of ``size`` of n tasks, all for 0; of two samples with one seed, the larger has the smaller."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[:size] if size else order)
