"""Implement the passes for any network and adaptation, with automatic differentiation under ``vmap``."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, ones_like, zeros_like
from torch.func import grad, grad_and_value, vjp

from core.maml.backbone import Params
from core.maml.episodes import sum_over_tasks, vmap_tasks
from core.maml.forward import jvp
from core.maml.objective import Bilevel, Task


class RowScores(NamedTuple):
    """A tuple of the scores of the rows of several tasks along one direction u (:mod:`core.influence.scores`).

    Attributes:
        by_s, by_q: ``d phi / d s`` ``(T, S)`` and ``d phi / d q`` ``(T, Q)``.
        effect: P(z) of every support row, ``(T, S)``: the change of the query loss of its task if it is removed
            (Thm 4.7).
        support, query: Logits after adaptation, ``(T, S, ways)`` and ``(T, Q, ways)``.
    """

    by_s: Tensor
    by_q: Tensor
    effect: Tensor
    support: Tensor
    query: Tensor


def logit_curvature(logits: Tensor, change: Tensor, weights: Tensor) -> Tensor:
    """Return the Hessian of a weighted mean cross-entropy with respect to the logits, times a change of the logits.

    The logits, the change and the result are ``(T, n, ways)``; the weights are ``(T, n)``.
    """
    probability = logits.softmax(-1)
    product = probability * (change - (probability * change).sum(-1, keepdim=True))
    return product * (weights / weights.shape[-1])[..., None]


class GenericPasses:
    """A set of passes over a chunk of T tasks at meta-parameters ``params``, by automatic differentiation.

    Results are sums over the chunk unless stated otherwise.
    """

    def __init__(self, model: Bilevel) -> None:
        self._model = model

    def query_logits(self, params: Params, chunk: Task) -> Tensor:
        """Return the logits ``(T, Q, ways)`` of the query images after adaptation."""
        return vmap_tasks(self._model.query_logits)(params, chunk)

    def gradients(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        """Return the total gradient g_k of every task ``(T, ...)`` (Thm 4.1) and its query loss ``(T,)``."""
        return vmap_tasks(grad_and_value(self._model.task_loss))(params, chunk)

    def gradient(self, params: Params, chunk: Task) -> tuple[Params, Tensor]:
        """Return the sum of the total gradients over the tasks, and the query losses ``(T,)``."""

        def loss(p: Params) -> tuple[Tensor, Tensor]:
            losses = vmap_tasks(self._model.task_loss)(p, chunk)
            return losses.sum(), losses

        return grad(loss, has_aux=True)(params)

    def hessian(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return ``sum_k D_lambda D_lambda L_O^k v`` through the adaptation (Def. 4.2), without approximation."""
        return jvp(lambda p: grad(sum_over_tasks(self._model.task_loss))(p, chunk), (params,), (v,))[1]

    def gauss_newton(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return ``sum_k J_k^T A_k J_k v``.

        J_k is the derivative of the query logits of task k with respect to lambda, through the adaptation, and A_k is
        the Hessian of its query loss with respect to the logits.
        """

        def logits(p: Params) -> Tensor:
            return vmap_tasks(self._model.query_logits)(p, chunk)

        out, change = jvp(logits, (params,), (v,))
        return vjp(logits, params)[1](logit_curvature(out, change, chunk.q))[0]

    def fisher(self, params: Params, v: Params, chunk: Task) -> Params:
        """Return ``sum_k g_k g_k^T v``."""

        def losses(p: Params) -> Tensor:
            return vmap_tasks(self._model.task_loss)(p, chunk)

        _, change = jvp(losses, (params,), (v,))
        return vjp(losses, params)[1](change)[0]

    def weight_change_gradients(self, params: Params, chunk: Task, change: Task) -> Params:
        """Return D_lambda of the derivative of each L_O^k along a change of its weights, ``(T, ...)``.

        The change is given by s and q of ``change``.
        """

        def directional(p: Params, pair: tuple[Task, Task]) -> Tensor:
            task, difference = pair

            def loss(s: Tensor, q: Tensor) -> Tensor:
                return self._model.task_loss(p, task._replace(s=s, q=q))

            return jvp(loss, (task.s, task.q), (difference.s, difference.q))[1]

        return vmap_tasks(grad(directional))(params, (chunk, change))

    def row_scores(self, params: Params, u: Params, chunk: Task) -> RowScores:
        """Return the scores of every row along u (:mod:`core.influence.scores`), and the logits after adaptation."""

        def scores(p: Params, task: Task) -> RowScores:
            return self._task_scores(p, u, task)

        return vmap_tasks(scores)(params, chunk)

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

        (phi, _), back, (support, query) = cast(Any, vjp(losses, task.s, task.q, has_aux=True))
        one, zero = ones_like(phi), zeros_like(phi)
        by_s, by_q = back((one, zero))
        effect, _ = back((zero, -one))
        return RowScores(by_s, by_q, effect, support, query)
