"""Define the bilevel objective, including which terms are sums and which are means.

- Inner loss of task k:  ``L_I(theta) = (1 / S_k) sum_z s_z l(z; theta)`` over the S_k rows of its support set.
- Outer loss of task k:  ``L_O(lambda) = (1 / Q_k) sum_z q_z l(z; theta_k(lambda))`` over its Q_k query rows.
- Objective:             ``L(lambda) = sum_k L_O^k(lambda) + delta / 2 |lambda|^2``.

``l`` is the cross-entropy. ``S_k`` and ``Q_k`` count **all** rows, including those of weight 0: removing a row sets its
weight to 0 and leaves all other terms unchanged, which is the change that influence estimates differentiate. Weights
apply to losses only, so a row of weight 0 still contributes to the batch statistics of its set. Using sums instead of
means is equivalent to multiplying all weights by ``S_k`` and ``Q_k``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from core.maml.backbone import Network, Params


class Task(NamedTuple):
    """A tuple of the tensors of one task, or of several tasks stacked along a new first axis.

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


def inner_loss(network: Network, theta: Params, task: Task) -> Tensor:
    """Return the inner loss L_I(theta), a scalar."""
    return (task.s * F.cross_entropy(network(theta, task.xs), task.ys, reduction="none")).mean()


Adaptation = Callable[[Network, Params, Task], Params]
"""A function that returns theta_k(lambda), the network parameters after adaptation to the support set of a task,
differentiable with respect to the meta-parameters and ``task.s`` (:mod:`core.maml.adaptation`)."""


@dataclass(frozen=True)
class Bilevel:
    """A bilevel model of a network and its adaptation.

    Attributes:
        delta: Weight decay of the objective, which is a sum over tasks.
        first_order: Whether to replace ``d theta_k / d lambda`` by the identity. Values do not change. Gradients with
            respect to lambda become the direct gradients of the paper (eq. 2-3), which are the update of first-order
            MAML (Finn et al. 2017, section 5.2), and second derivatives become the direct Hessian. Derivatives with
            respect to support weights remain exact.
    """

    network: Network
    adaptation: Adaptation
    delta: float
    first_order: bool = False

    def adapt(self, params: Params, task: Task) -> Params:
        """Return theta_k(lambda), the parameters after adaptation to the support set."""
        if not self.first_order:
            return self.adaptation(self.network, params, task)
        constant = {name: value.detach() for name, value in params.items()}
        theta = self.adaptation(self.network, constant, task)
        return {name: params[name] + (value - constant[name]) for name, value in theta.items()}

    def query_logits(self, params: Params, task: Task) -> Tensor:
        """Return the logits ``(Q, ways)`` of the query images after adaptation."""
        return self.network(self.adapt(params, task), task.xq)

    def task_loss(self, params: Params, task: Task) -> Tensor:
        """Return the outer loss L_O^k(lambda), a scalar."""
        return (task.q * F.cross_entropy(self.query_logits(params, task), task.yq, reduction="none")).mean()
