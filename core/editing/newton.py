"""Newton's method on the objective of the changed task list, from the present parameters, within a trust region.

With f the mean query loss of the tasks that are kept, as they are after the changes, plus their share of the weight
decay, the step is ``-(C + delta / N I + mu I)^-1 g``: g the gradient of f, C its Gauss-Newton curvature without the
decay. mu is the multiplier of a trust region (Moré and Sorensen 1983): every mu gives the minimiser of the quadratic
model within some radius, and the larger mu, the smaller the radius. One Lanczos recurrence from g answers for all mu at
once (:mod:`core.editing.krylov`); which of them is taken is decided by f itself, not by the model, and if none lowers f
there is no step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.editing.cost import Cost
from core.editing.krylov import Krylov
from core.editing.settings import NewtonSettings
from core.influence.curvature import Curvature
from core.maml.backbone import Params
from core.maml.episodes import Chunk, Episodes, OnChunk
from core.maml.objective import Bilevel
from core.maml.passes import passes_of
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.runtime.progress import Progress

SHARES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Multipliers that are tried, as shares of the largest Ritz value; together they span all useful radii."""

Remember = Callable[[Callable[[], Sequence[np.ndarray]]], list[np.ndarray]]
"""Do one step, or return what an interrupted attempt stored (:meth:`core.workspace.runs.RunWriter.save_step`)."""


@dataclass(frozen=True)
class NewtonEdit:
    """What a step gives.

    Attributes:
        params: The meta-parameters after it.
        report: taken (False: nothing lowered the objective, the parameters are as they were), share (mu over the
            largest Ritz value), shift (mu), relative_step (norm of the step over that of the parameters), objective
            (before), predicted and actual (decrease, by the quadratic model and by f), ratio (actual over predicted),
            gradient_norm, smallest and largest (Ritz values), products, gradient_tasks, curvature_tasks, tried (share,
            relative_step, predicted, actual of every trial; an actual decrease of None is not finite).
        cost: Passes that it took.
    """

    params: Params
    report: dict[str, Any]
    cost: Cost


def _at_once(compute: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
    return list(compute())


def newton_edit(
    model: Bilevel,
    params: Params,
    kept: Episodes,
    settings: NewtonSettings | None = None,
    progress: Progress | None = None,
    remember: Remember = _at_once,
) -> NewtonEdit:
    """One step from ``params`` on the objective of the tasks ``kept``, whose weights and labels are those wanted.

    Args:
        remember: Keeps the gradient, every product and every trial, so that an interrupted step goes on from there.

    Raises:
        UserError: the gradient or a product is not finite.
    """
    settings, progress = settings or NewtonSettings(), progress or Progress()
    lam, n = flatten(params), len(kept)
    decay = model.delta / n
    measured, curved = (_drawn(n, m, settings.seed) for m in (settings.gradient_tasks, settings.curvature_tasks))

    progress.stage("gradient of what is kept", len(measured))

    def first() -> list[np.ndarray]:
        slope, loss = _mean_gradient(model, params, kept, measured, progress.advance)
        return [slope.cpu().numpy(), np.array(loss)]

    slope, loss = remember(first)
    gradient = torch.from_numpy(slope).to(lam) + decay * lam
    before, norm = float(loss) + _weight_decay_term(decay, lam), float(gradient.norm())
    if not np.isfinite([before, norm]).all():
        raise UserError("The gradient of what is kept is not finite.", "Check the model; try float64.")
    report: dict[str, Any] = {
        **asdict(settings),
        "gradient_tasks": len(measured),
        "curvature_tasks": len(curved),
        "objective": before,
        "gradient_norm": norm,
    }
    if norm == 0:
        return NewtonEdit(params, report | _no_step([], 0, 0.0, 0.0), Cost(gradients=len(measured)))

    progress.stage("curvature of what is kept", settings.products * len(curved))
    curvature = Curvature("gauss-newton", model, params, kept, curved, progress.advance)

    def product(v: Tensor) -> Tensor:
        (made,) = remember(lambda: [(curvature(v) / n).cpu().numpy()])
        return torch.from_numpy(made).to(v)

    space = Krylov(product, gradient, settings.products)
    made = len(space.basis.values)
    cost = Cost(len(measured), made * len(curved))
    if space.largest <= 0:  # nothing says how long a step may be
        return NewtonEdit(params, report | _no_step([], made, space.smallest, space.largest), cost)

    progress.stage("trial steps", len(SHARES) * len(measured))
    tried: list[dict[str, Any]] = []
    for share in SHARES:
        step = space.step(share * space.largest + decay)
        there = unflatten(lam + step, params)
        (value,) = remember(partial(_trial, model, there, kept, measured, progress.advance))
        actual = before - (float(value) + _weight_decay_term(decay, lam + step))
        tried.append(
            {
                "share": share,
                "relative_step": float(step.norm() / lam.norm()),
                "predicted": space.decrease(share * space.largest + decay, decay),
                "actual": actual if np.isfinite(actual) else None,
            }
        )
    cost += Cost(evaluations=len(SHARES) * len(measured))
    report |= _no_step(tried, made, space.smallest, space.largest)
    best = max(tried, key=lambda one: -np.inf if one["actual"] is None else one["actual"])
    if best["actual"] is None or best["actual"] <= 0:
        return NewtonEdit(params, report, cost)
    shift = best["share"] * space.largest
    report |= {**best, "taken": True, "shift": shift, "ratio": best["actual"] / best["predicted"]}
    return NewtonEdit(unflatten(lam + space.step(shift + decay), params), report, cost)


def _trial(
    model: Bilevel, params: Params, episodes: Episodes, positions: np.ndarray, on_chunk: OnChunk
) -> list[np.ndarray]:
    """:func:`mean_loss` as an array; infinite where the step leads to parameters from which tasks cannot adapt."""
    try:
        return [np.array(mean_loss(model, params, episodes, positions, on_chunk))]
    except UserError:
        return [np.array(np.inf)]


def mean_loss(model: Bilevel, params: Params, episodes: Episodes, positions: np.ndarray, on_chunk: OnChunk) -> float:
    """Mean query loss of the tasks at ``positions`` after adaptation, without weight decay."""
    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        logits, task = passes.query_logits(params, chunk.task), chunk.task
        rows = F.cross_entropy(logits.flatten(0, 1), task.yq.flatten(), reduction="none")
        return [(rows.view_as(task.q) * task.q).mean(1).double().sum()]

    return float(episodes.summed(of_chunk, positions, on_chunk)[0]) / len(positions)


def _mean_gradient(
    model: Bilevel, params: Params, episodes: Episodes, positions: np.ndarray, on_chunk: OnChunk
) -> tuple[Tensor, float]:
    """Mean gradient ``(P,)`` of the tasks at ``positions`` and their mean query loss, without weight decay."""
    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        gradient, losses = passes.gradient(params, chunk.task)
        return [flatten(gradient), losses.double().sum()]

    gradient, loss = episodes.summed(of_chunk, positions, on_chunk)
    return gradient / len(positions), float(loss) / len(positions)


def _weight_decay_term(decay: float, lam: Tensor) -> float:
    """The share of the weight decay in the mean objective."""
    return decay / 2 * float(lam.double().square().sum())


def _drawn(n: int, size: int, seed: int) -> np.ndarray:
    """Positions of ``size`` of n tasks, all for 0; the smaller of two draws with one seed lies within the larger."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[:size] if size else order)


def _no_step(tried: list[dict[str, Any]], products: int, smallest: float, largest: float) -> dict[str, Any]:
    """The report of staying where one is."""
    return {
        "taken": False,
        "share": None,
        "shift": None,
        "relative_step": 0.0,
        "predicted": 0.0,
        "actual": 0.0,
        "ratio": None,
        "products": products,
        "smallest": smallest,
        "largest": largest,
        "tried": tried,
    }
