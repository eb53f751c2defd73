"""Every pass over a chunk of tasks for any network and any adaptation, by PyTorch's own derivatives under ``vmap``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, ones_like, zeros_like
from torch.func import grad, grad_and_value, vjp

from core.maml.backbone import Params
from core.maml.episodes import batched, total
from core.maml.forward import jvp
from core.maml.objective import Bilevel, Task

_Pair = tuple[Tensor, Tensor]
_VjpWithLogits = tuple[_Pair, Callable[[_Pair], _Pair], _Pair]
"""What vjp returns with ``has_aux``: the values, the vector-Jacobian product, and here the logits."""


class RowScores(NamedTuple):
    """What the rows of several tasks get from one direction u (:mod:`core.influence.scores`).

    Attributes:
        by_s, by_q: ``d phi / d s`` ``(T, S)`` and ``d phi / d q`` ``(T, Q)``.
        effect: P(z) of every support row, ``(T, S)``: the change of the own task's query loss when it leaves (Thm 4.7).
        support, query: Logits after adaptation, ``(T, S, ways)`` and ``(T, Q, ways)``.
    """

    by_s: Tensor
    by_q: Tensor
    effect: Tensor
    support: Tensor
    query: Tensor


def logit_curvature(logits: Tensor, change: Tensor, weights: Tensor) -> Tensor:
    """The Hessian of a weighted mean cross-entropy by the logits, times a change of them; all ``(T, n, ways)``."""
    probability = logits.softmax(-1)
    curved = probability * (change - (probability * change).sum(-1, keepdim=True))
    return curved * (weights / weights.shape[-1])[..., None]


class GenericPasses:
    """See :class:`core.maml.passes.Passes`."""

    def __init__(self, model: Bilevel) -> None:
        self._model = model

    def query_logits(self, params: Params, chunk: Task) -> Tensor:
        return batched(self._model.query_logits)(params, chunk)

    def gradients(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        return batched(grad_and_value(self._model.task_loss))(params, chunk)

    def gradient(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        def losses(p: Params) -> tuple[Tensor, Tensor]:
            each = batched(self._model.task_loss)(p, chunk)
            return each.sum(), each

        return grad(losses, has_aux=True)(params)

    def hessian(self, params: Params, v: Params, chunk: Task) -> Params:
        return jvp(lambda p: grad(total(self._model.task_loss))(p, chunk), (params,), (v,))[1]

    def gauss_newton(self, params: Params, v: Params, chunk: Task) -> Params:
        def logits(p: Params) -> Tensor:
            return batched(self._model.query_logits)(p, chunk)

        out, change = jvp(logits, (params,), (v,))
        return vjp(logits, params)[1](logit_curvature(out, change, chunk.q))[0]

    def fisher(self, params: Params, v: Params, chunk: Task) -> Params:
        def losses(p: Params) -> Tensor:
            return batched(self._model.task_loss)(p, chunk)

        _, change = jvp(losses, (params,), (v,))
        return vjp(losses, params)[1](change)[0]

    def weight_change_gradients(self, params: Params, chunk: Task, change: Task) -> Params:
        def directional(p: Params, pair: tuple[Task, Task]) -> Tensor:
            """d L_O^k along the change of weights."""
            task, difference = pair

            def loss(s: Tensor, q: Tensor) -> Tensor:
                return self._model.task_loss(p, task._replace(s=s, q=q))

            return jvp(loss, (task.s, task.q), (difference.s, difference.q))[1]

        return batched(grad(directional))(params, (chunk, change))

    def row_scores(self, params: Params, u: Params, chunk: Task) -> RowScores:
        def of_task(p: Params, task: Task) -> RowScores:
            return self._task_scores(p, u, task)

        return batched(of_task)(params, chunk)

    def _task_scores(self, params: Params, u: Params, task: Task) -> RowScores:
        model = self._model

        def losses(s: Tensor, q: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
            weighted = task._replace(s=s, q=q)

            def loss(p: Params) -> tuple[Tensor, tuple[Tensor, Tensor]]:
                theta = model.adapt(p, weighted)
                query = model.network(theta, task.xq)
                rows = F.cross_entropy(query, task.yq, reduction="none")
                return (weighted.q * rows).mean(), (model.network(theta, task.xs), query)

            value, phi, logits = jvp(loss, (params,), (u,), has_aux=True)
            return (phi, value), logits

        (phi, _), back, (support, query) = cast(_VjpWithLogits, vjp(losses, task.s, task.q, has_aux=True))
        one, zero = ones_like(phi), zeros_like(phi)
        by_s, by_q = back((one, zero))
        effect, _ = back((zero, -one))
        return RowScores(by_s, by_q, effect, support, query)
