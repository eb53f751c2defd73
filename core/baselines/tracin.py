"""TracIn (Pruthi et al. 2020, "Estimating Training Data Influence by Tracing Gradient Descent", section 3.2) by dattri.

``sum_c rate_c g_k(lambda_c) . v_t(lambda_c)``: to first order, how much steps on training task k at the
checkpoints lowered the loss of held-out task t. A second opinion on our own one-pass TracIn: dattri takes the
held-out gradients again for every batch of training tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from core.baselines.libraries import checked_scores
from core.baselines.metatasks import attribution_task, guarded, quiet, task_loader
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel
from core.runtime.errors import UserError


def dattri_tracin(
    model: Bilevel, checkpoints: Sequence[Params], rates: Sequence[float], train: Episodes, heldout: Episodes
) -> np.ndarray:
    """TracIn scores ``(N, T)``, positive is helpful; in nats.

    dattri adds the checkpoints up in float32, so about 7 digits of a score are good, whatever the model's type.

    Args:
        checkpoints: Meta-parameters along one training.
        rates: The learning rate at each checkpoint.

    Raises:
        UserError: not one rate a checkpoint, tasks of unequal shape, or scores that rank nothing.
    """
    if len(rates) != len(checkpoints):
        raise UserError(
            f"There are {len(checkpoints)} checkpoints, but {len(rates)} learning rates.", "Give one for each."
        )
    train_loader, heldout_loader = task_loader(train), task_loader(heldout)
    attributor = quiet("dattri.algorithm.tracin").TracInAttributor(
        attribution_task(model.task_loss, checkpoints),
        weight_list=torch.tensor(rates, dtype=torch.float64),
        normalized_grad=False,
        device=str(train.device),
    )
    attributor.projector_kwargs = None  # the constructor reads None as its default, a random projection
    attributor.grad_loss_func = guarded(attributor.grad_loss_func)
    attributor.grad_target_func = guarded(attributor.grad_target_func)
    with torch.no_grad():
        scores = attributor.attribute(train_loader, heldout_loader)
    return checked_scores(scores.cpu().numpy(), "TracIn")
