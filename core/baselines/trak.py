"""TRAK (Park et al. 2023, "TRAK: Attributing Model Behavior at Scale", equations 13 to 15) by dattri.

With p the probability of being right, f = log(p / (1 - p)) the margin and phi = R^T D_lambda f the projected
gradient, the score of training task k for held-out task t is ``phi_t^T (Phi^T Phi)^-1 phi_k (1 - p_k)``: how much
the margin of t owes to k in a logistic regression on the features phi. Here a data point is a whole task, and
``p = exp(-L_O)``, the geometric mean of the probabilities that the adapted model gives to the query labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from core.baselines.libraries import checked_scores
from core.baselines.metatasks import attribution_task, guarded, named, quiet, task_loader
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel, Task
from core.runtime.errors import UserError

LOST_DIGITS = 1e-3
LOW_RANK = (
    "The features of TRAK have too low a rank to be inverted.",
    "Lower the dimension or use more, and more different, training tasks.",
)


def projected_dimension(dimension: int, tasks: int, parameters: int) -> int:
    """The width of the features: as asked for, but at most half of the tasks and half of the parameters.

    Beyond that ``Phi^T Phi`` is singular or nearly so: it has the rank of the tasks at most, and the head has
    directions that no loss depends on (adding one vector to the weights of all classes).
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
    """TRAK scores ``(N, T)``, positive is helpful; in units of the margin (nats).

    Args:
        checkpoints: Meta-parameters of independent trainings, whose scores are averaged: TRAK-1, -5, -10.
        dimension: Width of the random projection; see :func:`projected_dimension`.
        seed: Of the projection, which is another one for each checkpoint.
        on_step: Called with the number of tasks of each batch; in all ``len(checkpoints) * (N + T)``.

    Raises:
        UserError: tasks of unequal shape, features of too low a rank, or scores that rank nothing.
    """

    def margin(params: Params, task: Task) -> Tensor:
        loss = model.task_loss(params, task)
        return -loss - torch.log(-torch.expm1(-loss))  # expm1 keeps 1 - p of a nearly perfect task

    def correct(params: Params, task: Task) -> Tensor:
        return torch.exp(-model.task_loss(params, task))

    train_loader, heldout_loader = task_loader(train), task_loader(heldout)
    task = attribution_task(margin, checkpoints)
    parameters = sum(value.numel() for value in checkpoints[0].values())
    attributor = quiet("dattri.algorithm.trak").TRAKAttributor(
        task,
        correct_probability_func=named(correct, checkpoints[0]),
        # Every setting is given: dattri keeps those of the last caller as the defaults of the next.
        projector_kwargs={
            "proj_dim": projected_dimension(dimension, len(train), parameters),
            "proj_max_batch_size": 32,
            "proj_seed": seed,
            "proj_type": "rademacher",
            "device": str(train.device),
        },
        device=str(train.device),
    )
    attributor.grad_loss_func = guarded(attributor.grad_loss_func, on_step)
    attributor.grad_target_func = guarded(attributor.grad_target_func, on_step)
    try:
        with torch.no_grad():
            attributor.cache(train_loader)
            _check_rank(attributor.inv_XTX_XT_list)
            scores = attributor.attribute(heldout_loader)
    except torch.linalg.LinAlgError as error:
        raise UserError(*LOW_RANK) from error
    return checked_scores(scores.cpu().numpy(), "TRAK")


def _check_rank(inverses: list[Tensor]) -> None:
    """Refuse features whose Gram matrix could be inverted in name only; ``(Phi^T Phi)^-1 Phi^T`` of each checkpoint."""
    for inverse in inverses:
        condition = float(torch.linalg.cond(inverse))
        if not condition**2 * torch.finfo(torch.float64).eps < LOST_DIGITS:
            raise UserError(*LOW_RANK)
