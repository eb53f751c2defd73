"""Compute forward-mode derivatives safely from several threads.

PyTorch counts the levels of forward mode in global variables of the process. If two threads use forward mode at the
same time, their levels get mixed up, and one of them fails with "Trying to access a forward AD level with an invalid
index". A lock therefore serialises the threads of :class:`core.maml.episodes.Episodes` in this module. Reverse mode has
no such levels and stays parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from threading import RLock
from typing import Any

import torch

_LOCK = RLock()  # reentrant, because an adaptation can use forward mode within a pass that does


def jvp(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...], **options: Any) -> Any:
    """Compute :func:`torch.func.jvp`, on a CPU one thread at a time.

    Tasks run on several threads on a CPU only. A backward pass inside the locked section also runs on the calling
    thread on a CPU only; on a GPU it has a separate thread, which would wait for the lock forever.
    """
    x = primals[0]
    first = next(iter(x.values())) if isinstance(x, dict) else x
    with _LOCK if first.device.type == "cpu" else nullcontext():
        return torch.func.jvp(function, primals, tangents, **options)
