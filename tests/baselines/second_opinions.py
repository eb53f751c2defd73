"""TracIn (Pruthi et al. 2020, section 3.2) by dattri: an independent check of our own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from core.baselines.metatasks import attribution_task, check_gradient, quiet, task_loader
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel


def dattri_tracin(
    model: Bilevel, checkpoints: Sequence[Params], rates: Sequence[float], train: Episodes, heldout: Episodes
) -> np.ndarray:
    """Return ``sum_c rate_c g_k(lambda_c) . v_t(lambda_c)``, ``(N, T)``, to about 7 digits: dattri sums in float32."""
    attributor = quiet("dattri.algorithm.tracin").TracInAttributor(
        attribution_task(model.task_loss, checkpoints),
        weight_list=torch.tensor(rates, dtype=torch.float64),
        normalized_grad=False,
        device=str(train.device),
    )
    attributor.projector_kwargs = None  # the constructor reads None as its default, a random projection
    attributor.grad_loss_func = check_gradient(attributor.grad_loss_func)
    attributor.grad_target_func = check_gradient(attributor.grad_target_func)
    with torch.no_grad():
        return attributor.attribute(task_loader(train), task_loader(heldout)).cpu().numpy()
