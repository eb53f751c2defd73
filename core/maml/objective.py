"""The bilevel objective, and the one place that says what is summed and what is averaged.

- Inner loss of task k:  ``L_I(theta) = (1 / S_k) sum_z s_z l(z; theta)`` over the S_k rows of its support set.
- Outer loss of task k:  ``L_O(lambda) = (1 / Q_k) sum_z q_z l(z; theta_k(lambda))`` over its Q_k query rows.
- Objective:             ``L(lambda) = sum_k L_O^k(lambda) + delta / 2 |lambda|^2``.

``l`` is the cross-entropy. ``S_k`` and ``Q_k`` count **all** rows, those of weight 0 too: taking something away
sets its weight to 0 and leaves every other term as it was, which is what the influence estimates are derivatives
of. The weights act on losses alone; a row of weight 0 still takes part in the batch statistics of its set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from core.maml.backbone import Network, Params


class Task(NamedTuple):
    """The tensors of one task, or of several stacked along a new first axis.

    Attributes:
        xs, xq: Support and query images, ``(S, channels, height, width)`` and ``(Q, ...)``.
        ys, yq: Labels within the task, ``(S,)`` and ``(Q,)``, int64.
        s, q: Weights ``(S,)`` and ``(Q,)``.
    """

    xs: Tensor
    ys: Tensor
    s: Tensor
    xq: Tensor
    yq: Tensor
    q: Tensor


@dataclass(frozen=True)
class Bilevel:
    """A network with the way it adapts: K unrolled gradient steps (Finn et al. 2017, equation 1).

    Attributes:
        network: Logits from (parameters, images).
        steps: Inner gradient steps K.
        rate: Inner learning rate.
        delta: Weight decay of the objective above (which is a sum over tasks).
    """

    network: Network
    steps: int
    rate: float
    delta: float

    def losses(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of each image, ``(n,)``, in nats."""
        return F.cross_entropy(self.network(params, x), y, reduction="none")

    def adapt(self, params: Params, task: Task) -> Params:
        """theta_k(lambda): parameters after K steps on the support set; differentiable to any order."""

        def inner(theta: Params) -> Tensor:
            return (task.s * self.losses(theta, task.xs, task.ys)).mean()

        theta = params
        for _ in range(self.steps):
            gradient = grad(inner)(theta)
            theta = {name: value - self.rate * gradient[name] for name, value in theta.items()}
        return theta

    def query_logits(self, params: Params, task: Task) -> Tensor:
        """Logits ``(Q, ways)`` of the query images after adaptation."""
        return self.network(self.adapt(params, task), task.xq)

    def task_loss(self, params: Params, task: Task) -> Tensor:
        """L_O^k(lambda), a scalar."""
        return (task.q * F.cross_entropy(self.query_logits(params, task), task.yq, reduction="none")).mean()
