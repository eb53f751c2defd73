"""Which training tasks a retraining keeps."""

from __future__ import annotations

import numpy as np

from core.runtime.errors import UserError

PROTOCOLS = ("half", "one")


def subsets(truth: str, tasks: int, count: int, seed: int = 0) -> np.ndarray:
    """``(count, tasks)`` of bool: what each retraining keeps.

    Args:
        truth: ``half`` keeps random halves (LDS, Park et al. 2023, section 5), ``one`` leaves one task out each time,
            tasks drawn without replacement. The first ones are the same whatever the count.

    Raises:
        UserError: more are asked for than there are tasks to leave out, or fewer than 3.
    """
    if truth not in PROTOCOLS:
        raise UserError(f"There is no truth {truth!r}.", f"Use {' or '.join(PROTOCOLS)}.")
    if count < 3:
        raise UserError("A correlation needs 3 subsets at least.", "Use 20 or more.")
    if truth == "one":
        if count > tasks:
            raise UserError(f"There are only {tasks} tasks to leave out.", "Ask for fewer subsets.")
        left_out = np.random.default_rng([1, seed]).permutation(tasks)[:count]
        return np.arange(tasks)[None] != left_out[:, None]
    if tasks < 4:
        raise UserError(f"{tasks} tasks have no halves to compare.", "Use --truth one.")
    orders = [np.random.default_rng([2, seed, number]).permutation(tasks) for number in range(count)]
    return np.stack([np.isin(np.arange(tasks), order[: tasks // 2]) for order in orders])
