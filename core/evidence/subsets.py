"""Subsets of the training tasks to retrain on."""

from __future__ import annotations

import numpy as np

from core.runtime.errors import UserError


def subset_masks(truth: str, tasks: int, count: int, seed: int = 0) -> np.ndarray:
    """Return ``(count, tasks)`` of bool: the tasks that each retraining uses.

    Args:
        truth: ``half`` draws random halves (LDS, Park et al. 2023, section 5), ``one`` leaves one task out each time,
            drawn without replacement. The first subsets are the same whatever the count.

    Raises:
        UserError: too few tasks for halves, or fewer tasks to leave out than subsets.
    """
    if truth == "one":
        if count > tasks:
            raise UserError(
                f"{count} subsets need as many tasks to leave out; there are {tasks}.", "Use fewer subsets."
            )
        excluded = np.random.default_rng([1, seed]).permutation(tasks)[:count]
        return np.arange(tasks)[None] != excluded[:, None]
    if tasks < 4:
        raise UserError(f"{tasks} tasks are too few for halves.", "Use --truth one.")
    orders = [np.random.default_rng([2, seed, number]).permutation(tasks) for number in range(count)]
    return np.stack([np.isin(np.arange(tasks), order[: tasks // 2]) for order in orders])
