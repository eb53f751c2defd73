"""Forward-mode derivatives that several threads may ask for at once.

PyTorch counts the levels of forward mode once for the whole process, in plain globals. Two threads that are in it at
the same time pair each other's levels, and one of them fails with "Trying to access a forward AD level with an invalid
index". The threads of :class:`core.maml.episodes.Episodes` therefore take turns here; reverse mode knows no such levels
and stays parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import RLock
from typing import Any

import torch
from torch import Tensor

_turn = RLock()  # again by the same thread: an adaptation may be in forward mode inside a pass that is


def jvp(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...], **options: Any) -> Any:
    """:func:`torch.func.jvp`, one thread at a time."""
    with _alone(primals[0]):
        return torch.func.jvp(function, primals, tangents, **options)


def jacfwd(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """:func:`torch.func.jacfwd`, one thread at a time."""

    def jacobian(at: Tensor) -> Tensor:
        with _alone(at):
            return torch.func.jacfwd(function)(at)

    return jacobian


def _alone(at: Tensor | dict[str, Tensor]) -> AbstractContextManager[Any]:
    """The lock, on a CPU alone: only there are there several threads of tasks, and only there a backward pass inside
    runs on the thread that waits for it. On a GPU it has a thread of its own, which would wait for the lock forever.
    """
    first = next(iter(at.values())) if isinstance(at, dict) else at
    return _turn if first.device.type == "cpu" else nullcontext()
