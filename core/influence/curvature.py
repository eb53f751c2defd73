"""Curvature of the objective as an operator: products with a vector ``(P,)``, without building a matrix.

Every curvature is a sum over tasks (:mod:`core.maml.objective`) without weight decay and damping, which the
solver adds. Estimated on a subsample of m of N tasks, the sum is scaled by N / m.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from core.influence.settings import CURVATURES
from core.maml.adaptation import Implicit
from core.maml.backbone import Params
from core.maml.episodes import Chunk, Episodes, OnChunk, no_progress
from core.maml.objective import Bilevel
from core.maml.passes import passes_of
from core.maml.vectors import flatten, flatten_each, unflatten
from core.runtime.errors import UserError

GAMMA = "gamma"
PRODUCTS = {"gauss-newton": "gauss_newton", "exact": "hessian", "direct": "hessian", "task-fisher": "fisher"}
"""The passes (:mod:`core.maml.passes`) that compute the products of all curvatures but :data:`GAMMA`."""


def configure_gradient(model: Bilevel, gradient: str, inner: str = "cg") -> Bilevel:
    """Return the model with ``total`` or ``direct`` gradients, and with this inverse of the inner Hessian.

    Raises:
        UserError: EK-FAC is requested, but there is no inner Hessian to invert.
    """
    if inner != "cg":
        if not isinstance(model.adaptation, Implicit):
            raise UserError(
                "EK-FAC inverts the inner Hessian, but this model adapts by gradient steps, which have none.",
                "Use --inner cg, or train with --algorithm imaml.",
            )
        model = replace(model, adaptation=replace(model.adaptation, inverse=inner))
    return replace(model, first_order=True) if gradient == "direct" else model


class Curvature:
    """An operator ``v -> C v``, the sum over the tasks k of one of these products.

    - ``gauss-newton``: ``J_k^T A_k J_k v``, where J_k is the derivative of task k's query logits by lambda, through the
      adaptation, and A_k the Hessian of its query loss by the logits. Positive semi-definite.
    - ``exact``: the total Hessian of Def. 4.2 through the adaptation, without approximation. Indefinite in general.
    - ``direct``: ``d2 L_O^k / d theta2 v`` at theta_k, the Hessian without the adaptation (eq. 3). Indefinite.
    - ``task-fisher``: ``g_k g_k^T v`` with g_k the gradient of task k's query loss. Positive semi-definite, rank <= N.
    - ``gamma``: ``| d L_O^k / d theta |_1 v`` at theta_k, the approximation of the total Hessian by a multiple of the
      identity (Thm 5.1).

    Args:
        positions: Positions of the tasks it is estimated on; None means all.
        on_chunk: Called with the number of tasks after each chunk, for progress and cancelling.
    """

    def __init__(
        self,
        name: str,
        model: Bilevel,
        params: Params,
        episodes: Episodes,
        positions: np.ndarray | None = None,
        on_chunk: OnChunk = no_progress,
    ) -> None:
        if name not in CURVATURES:
            raise UserError(f"Unknown curvature {name!r}.", f"Use one of {', '.join(CURVATURES)}.")
        self.name, self.positions = name, positions
        self._passes = passes_of(replace(model, first_order=True) if name in ("direct", GAMMA) else model)
        self._params, self._episodes, self._on_chunk = params, episodes, on_chunk

    @property
    def tasks(self) -> int:
        """Return the number of tasks in a product."""
        return len(self._episodes if self.positions is None else self.positions)

    @property
    def scale(self) -> float:
        """Return N / m."""
        return len(self._episodes) / self.tasks

    def __call__(self, v: Tensor) -> Tensor:
        """Return ``C v`` for ``v`` of shape ``(P,)``."""
        if self.name == GAMMA:
            return self._gamma * v
        product, direction = getattr(self._passes, PRODUCTS[self.name]), unflatten(v, self._params)

        def of_chunk(chunk: Chunk) -> list[Tensor]:
            return [flatten(product(self._params, direction, chunk.task))]

        (out,) = self._episodes.sum_chunks(of_chunk, self.positions, self._on_chunk)
        return out * self.scale

    @cached_property
    def _gamma(self) -> float:
        def of_chunk(chunk: Chunk) -> list[Tensor]:
            direct, _ = self._passes.gradients(self._params, chunk.task)
            return [torch.stack([value.abs().sum() for value in direct.values()]).sum()]

        (total,) = self._episodes.sum_chunks(of_chunk, self.positions, self._on_chunk)
        return float(total) * self.scale


def task_gradients(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    positions: np.ndarray | None = None,
    on_chunk: OnChunk = no_progress,
    directions: Tensor | None = None,
) -> Tensor:
    """Return the total gradients g_k of task losses, ``(tasks, P)`` in the order of the list (Thm 4.1).

    With ``directions`` ``(T, P)``, return ``g_k . u_t`` for all rows u_t, ``(tasks, T)``; no gradient is then stored.
    """
    sorted_positions = np.arange(len(episodes)) if positions is None else np.sort(positions)
    width = flatten(params).numel() if directions is None else len(directions)
    out = torch.empty(len(sorted_positions), width, device=episodes.device, dtype=episodes.dtype)
    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        gradients = flatten_each(passes.gradients(params, chunk.task)[0])
        return [gradients if directions is None else gradients @ directions.T]

    for chunk_positions, (rows,) in episodes.collect_chunks(of_chunk, positions, on_chunk):
        index = np.searchsorted(sorted_positions, chunk_positions)
        out[torch.from_numpy(index).to(out.device)] = torch.from_numpy(rows).to(out)
    return out
