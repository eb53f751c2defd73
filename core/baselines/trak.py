"""TRAK (Park et al. 2023, "TRAK: Attributing Model Behavior at Scale", equations 13 to 15) by dattri.

With p the probability of being right, f = log(p / (1 - p)) the margin and phi = R^T D_lambda f the projected
gradient, the score of training task k for held-out task t is ``phi_t^T (Phi^T Phi)^-1 phi_k (1 - p_k)``: the
contribution of k to the margin of t in a logistic regression on the features phi. Here a data point is a task,
and ``p = exp(-L_O)``, the geometric mean of the probabilities that the adapted model gives to the query labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from core.baselines.libraries import checked_scores
from core.baselines.metatasks import attribution_task, check_gradient, quiet, task_loader, with_dattri_arguments
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel, Task
from core.runtime.errors import UserError

LARGEST_ERROR = 1e-3
"""Largest relative rounding error of the inverse Gram matrix."""


class RankError(UserError):
    """An error for features whose Gram matrix cannot be inverted."""

    def __init__(self) -> None:
        super().__init__(
            "The rank of TRAK's features is too low for their Gram matrix to be inverted.",
            "Use a smaller dimension, or more and more diverse training tasks.",
        )


def projected_dimension(dimension: int, tasks: int, parameters: int) -> int:
    """Return the width of the features: ``dimension``, but at most half the tasks and half the parameters.

    Beyond that ``Phi^T Phi`` is singular or nearly so: its rank is at most the number of tasks, and the loss does not
    depend on some directions of the head (adding one vector to the weights of all classes).
    """
    return max(1, min(dimension, tasks // 2, parameters // 2))


def trak_scores(
    model: Bilevel,
    checkpoints: Sequence[Params],
    train: Episodes,
    heldout: Episodes,
    *,
    dimension: int = 512,
    seed: int = 0,
    on_step: Callable[[int], None] = lambda tasks: None,
) -> np.ndarray:
    """Return TRAK scores ``(N, T)``, positive = helpful, in units of the margin (nats).

    Args:
        checkpoints: Meta-parameters of independent trainings, whose scores are averaged: TRAK-1, -5, -10.
        dimension: Width of the random projection; see :func:`projected_dimension`.
        on_step: Called with the number of tasks of each batch, ``len(checkpoints) * (N + T)`` in total.

    Raises:
        RankError: the features have too low a rank.
        UserError: tasks have unequal shapes, or the scores cannot rank.
    """

    def margin(params: Params, task: Task) -> Tensor:
        loss = model.task_loss(params, task)
        return -loss - torch.log(-torch.expm1(-loss))  # expm1 keeps the digits of 1 - p if p is close to 1

    def correct(params: Params, task: Task) -> Tensor:
        return torch.exp(-model.task_loss(params, task))

    train_loader, heldout_loader = task_loader(train), task_loader(heldout)
    task = attribution_task(margin, checkpoints)
    parameters = sum(value.numel() for value in checkpoints[0].values())
    attributor = quiet("dattri.algorithm.trak").TRAKAttributor(
        task,
        correct_probability_func=with_dattri_arguments(correct, checkpoints[0]),
        # All settings are passed, since dattri keeps those of the last call as defaults of the next.
        projector_kwargs={
            "proj_dim": projected_dimension(dimension, len(train), parameters),
            "proj_max_batch_size": 32,
            "proj_seed": seed,
            "proj_type": "rademacher",
            "device": str(train.device),
        },
        device=str(train.device),
    )
    attributor.grad_loss_func = check_gradient(attributor.grad_loss_func, on_step)
    attributor.grad_target_func = check_gradient(attributor.grad_target_func, on_step)
    try:
        with torch.no_grad():
            attributor.cache(train_loader)
            for inverse in attributor.inv_XTX_XT_list:  # (Phi^T Phi)^-1 Phi^T of each checkpoint
                condition = float(torch.linalg.cond(inverse))
                if not condition**2 * torch.finfo(torch.float64).eps < LARGEST_ERROR:
                    raise RankError
            scores = attributor.attribute(heldout_loader)
    except torch.linalg.LinAlgError as error:
        raise RankError from error
    return checked_scores(scores.cpu().numpy(), "TRAK")
