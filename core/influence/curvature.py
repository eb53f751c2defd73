"""Curvature of the objective as an operator: products with a vector ``(P,)``, no matrix is ever built.

Both curvatures are sums over tasks (:mod:`core.maml.objective`) without weight decay and damping, which the
solver adds. Estimated on a subsample of m of N tasks, the sum is scaled by N / m.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp, vjp

from core.errors import UserError
from core.influence.vectors import flatten, unflatten
from core.maml.backbone import Params
from core.maml.episodes import Episodes, batched, total
from core.maml.objective import Bilevel, Task

ChunkProduct = Callable[[Bilevel, Params, Params, Task], Params]


def exact_product(model: Bilevel, params: Params, v: Params, chunk: Task) -> Params:
    """``sum_k D_lambda D_lambda L_O^k v`` through the unrolled adaptation, by forward-over-reverse.

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


CURVATURES: dict[str, ChunkProduct] = {"gauss-newton": gauss_newton_product, "exact": exact_product}


class Curvature:
    """``v -> C v`` for one of :data:`CURVATURES`.

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
        self.name, self.positions, self._product = name, positions, CURVATURES[name]
        self._model, self._params, self._episodes, self._on_chunk = model, params, episodes, on_chunk

    @property
    def tasks(self) -> int:
        """Tasks a product runs through."""
        return self._episodes.count(self.positions)

    def __call__(self, v: Tensor) -> Tensor:
        """``C v`` for ``v`` of shape ``(P,)``."""
        direction = unflatten(v, self._params)
        out = torch.zeros_like(v)
        for chunk in self._episodes.chunks(self.positions):
            out += flatten(self._product(self._model, self._params, direction, chunk.task))
            self._on_chunk(len(chunk.positions))
        return out * (len(self._episodes) / self.tasks)
