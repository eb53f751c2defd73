"""Curvature of the objective as an operator: products with a vector ``(P,)``, no matrix is ever built.

Every curvature is a sum over tasks (:mod:`core.maml.objective`) without weight decay and damping, which the
solver adds. Estimated on a subsample of m of N tasks, the sum is scaled by N / m.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp, vjp

from core.errors import UserError
from core.maml.backbone import Params
from core.maml.episodes import Episodes, batched, total
from core.maml.objective import Bilevel, Task
from core.maml.vectors import flatten, unflatten

ChunkProduct = Callable[[Bilevel, Params, Params, Task], Params]


def exact_product(model: Bilevel, params: Params, v: Params, chunk: Task) -> Params:
    """``sum_k D_lambda D_lambda L_O^k v`` through the adaptation, by forward-over-reverse.

    This is the total Hessian of Def. 4.2; nothing is approximated. It is indefinite in general.
    """
    return jvp(lambda p: grad(total(model.task_loss))(p, chunk), (params,), (v,))[1]


def gauss_newton_product(model: Bilevel, params: Params, v: Params, chunk: Task) -> Params:
    """``sum_k J_k^T A_k J_k v``: J_k the derivative of task k's query logits by lambda, through the adaptation,
    and A_k the Hessian of its query loss by the logits. Positive semi-definite.
    """

    def logits(p: Params) -> Tensor:
        return batched(model.query_logits)(p, chunk)

    out, change = jvp(logits, (params,), (v,))
    probability = F.softmax(out, -1)
    curved = probability * (change - (probability * change).sum(-1, keepdim=True))
    return vjp(logits, params)[1](curved * (chunk.q / chunk.q.shape[-1])[..., None])[0]


def direct_product(model: Bilevel, params: Params, v: Params, chunk: Task) -> Params:
    """``sum_k d2 L_O^k / d theta2 v`` at theta_k: the Hessian that ignores the adaptation (eq. 3). Indefinite."""
    return exact_product(replace(model, first_order=True), params, v, chunk)


def task_fisher_product(model: Bilevel, params: Params, v: Params, chunk: Task) -> Params:
    """``sum_k g_k g_k^T v`` with g_k the gradient of task k's query loss. Positive semi-definite, of rank N at most."""

    def losses(p: Params) -> Tensor:
        return batched(model.task_loss)(p, chunk)

    _, change = jvp(losses, (params,), (v,))
    return vjp(losses, params)[1](change)[0]


def gamma(model: Bilevel, params: Params, chunk: Task) -> Tensor:
    """``sum_k | d L_O^k / d theta |_1`` at theta_k (Thm 5.1), a scalar."""

    def one(p: Params, task: Task) -> Tensor:
        direct = grad(replace(model, first_order=True).task_loss)(p, task)
        return torch.stack([value.abs().sum() for value in direct.values()]).sum()

    return total(one)(params, chunk)


PRODUCTS: dict[str, ChunkProduct] = {
    "gauss-newton": gauss_newton_product,
    "exact": exact_product,
    "direct": direct_product,
    "task-fisher": task_fisher_product,
}
GAMMA = "gamma"
CURVATURES = (*PRODUCTS, GAMMA)


class Curvature:
    """``v -> C v`` for one of :data:`CURVATURES`.

    ``gamma`` is the approximation of the total Hessian by a multiple of the identity (Thm 5.1).

    Args:
        name: Which curvature.
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
        on_chunk: Callable[[int], None] = lambda tasks: None,
    ) -> None:
        if name not in CURVATURES:
            raise UserError(f"There is no curvature {name!r}.", f"Known: {', '.join(CURVATURES)}.")
        self.name, self.positions = name, positions
        self._model, self._params, self._episodes, self._on_chunk = model, params, episodes, on_chunk

    @property
    def tasks(self) -> int:
        """Tasks a product runs through."""
        return self._episodes.count(self.positions)

    @property
    def scale(self) -> float:
        """N / m."""
        return len(self._episodes) / self.tasks

    def __call__(self, v: Tensor) -> Tensor:
        """``C v`` for ``v`` of shape ``(P,)``."""
        if self.name == GAMMA:
            return self._gamma * v
        direction = unflatten(v, self._params)
        out = torch.zeros_like(v)
        for chunk in self._episodes.chunks(self.positions):
            out += flatten(PRODUCTS[self.name](self._model, self._params, direction, chunk.task))
            self._on_chunk(len(chunk.positions))
        return out * self.scale

    @cached_property
    def _gamma(self) -> float:
        whole = 0.0
        for chunk in self._episodes.chunks(self.positions):
            whole += float(gamma(self._model, self._params, chunk.task))
            self._on_chunk(len(chunk.positions))
        return whole * self.scale


def task_gradients(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    positions: np.ndarray | None = None,
    on_chunk: Callable[[int], None] = lambda tasks: None,
) -> Tensor:
    """Total gradients g_k of task losses, ``(tasks, P)`` in the order of the list (Thm 4.1); all in memory."""
    return _rows(model, params, episodes, lambda gradients: gradients, flatten(params).numel(), positions, on_chunk)


def gradient_products(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    directions: Tensor,
    on_chunk: Callable[[int], None] = lambda tasks: None,
) -> Tensor:
    """``g_k . u_t`` for every task and every row u_t of ``directions`` ``(T, P)``: ``(tasks, T)``, no gradient kept."""
    return _rows(model, params, episodes, lambda g: g @ directions.T, len(directions), None, on_chunk)


def _rows(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    of: Callable[[Tensor], Tensor],
    width: int,
    positions: np.ndarray | None,
    on_chunk: Callable[[int], None],
) -> Tensor:
    """``of(gradients of a chunk)`` for all chunks, ``(tasks, width)``."""
    where = np.arange(len(episodes)) if positions is None else np.sort(positions)
    out = torch.empty(len(where), width, device=episodes.device, dtype=episodes.dtype)
    function = batched(grad(model.task_loss))
    for chunk in episodes.chunks(positions):
        gradients = torch.cat([value.flatten(1) for value in function(params, chunk.task).values()], 1)
        out[torch.from_numpy(np.searchsorted(where, chunk.positions)).to(out.device)] = of(gradients)
        on_chunk(len(chunk.positions))
    return out
