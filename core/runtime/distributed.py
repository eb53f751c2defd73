"""Several processes at one piece of work, as ``torchrun`` starts them; a process alone is a world of size 1.

All processes run the same program on the same inputs and take the same decisions. They differ in three things: each
computes its share of the tasks (:class:`core.maml.episodes.Episodes`) or of whole trainings (:meth:`World.deal`), sums
are added up over all of them, and rank 0 alone looks at what was computed before, writes results and speaks. Nothing
but the images, tasks and model has to be there on every machine.

What keeps them in step: work that may fail on one of them is done :meth:`World.together`, or by rank 0 for all
(:meth:`World.first`). Every exchange is preceded by that question whether anybody failed, so an error of one process
is an error of all, raised where they are, and none waits for one that is gone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from core.runtime.errors import UserError
from core.runtime.files import disk_errors

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store

T = TypeVar("T")
Item = TypeVar("Item")

_COLLECTIVE_TIMEOUT = timedelta(days=7)  # a process that was dealt less waits for one that still trains
_POLL = 0.01  # seconds


class CollectiveError(UserError):
    """An error of one process that all of them raise."""


class PeerLostError(Exception):
    """Another process is gone; what was finished so far is kept and found again."""


class World:
    """The processes at the present work, seen from one of them; this class is a process alone."""

    rank: int = 0
    size: int = 1

    def agree(self, error: UserError | None) -> None:
        """Raise on every process if one of them has an error."""
        if error is not None:
            raise error

    def sum(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Tensors of the same shapes on every process, added up; the same bits on all."""
        return list(parts)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        return [value]

    def broadcast(self, value: T, source: int = 0) -> T:
        """The value of one process."""
        return value

    @contextmanager
    def sync_errors(self) -> Iterator[None]:
        """Work that may fail on one process: then all raise :class:`CollectiveError` at its end."""
        error = None
        try:
            yield
        except CollectiveError:
            raise
        except UserError as caught:
            error = caught
        self.agree(error)

    def on_rank_zero(self, do: Callable[[], T]) -> T:
        """What rank 0 alone does, for everybody."""
        with self.sync_errors():
            value: Any = do() if self.rank == 0 else None
        return self.broadcast(value)

    def local_rank_zero_first(self, do: Callable[[], T]) -> T:
        """``do`` on every process, but on each machine by one of them before the others begin."""
        leads = int(os.environ.get("LOCAL_RANK", 0)) == 0
        with self.sync_errors():
            value = do() if leads else None
        return do() if value is None else value

    def rounds(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """Items in rounds of one a process, the one at ``rank`` for each; only the last round may be short."""
        return [items[start : start + self.size] for start in range(0, len(items), self.size)]

    def map_distributed(self, items: Sequence[Item], do: Callable[[Item, int], T]) -> list[T]:
        """``do`` all items, each by one process as if it were alone, and give everybody all results in their order.

        Args:
            do: Takes an item and the number of items in its round, for which rank 0 speaks.
        """
        mine = [(turn[self.rank], len(turn)) for turn in self.rounds(items) if self.rank < len(turn)]
        with self.sync_errors(), single_process():
            done = [do(item, count) for item, count in mine]
        shares = self.gather(done)
        return [shares[index % self.size][index // self.size] for index in range(len(items))]

    def share(self, folders: Sequence[Path]) -> None:
        """Copy folders to where they are not seen, on machines without a common disk.

        The one at ``index`` is taken from rank ``index % size``, as :meth:`deal` deals them out.
        """
        lacking = self.gather([not folder.is_dir() for folder in folders])
        for index, folder in enumerate(folders):
            if any(lack[index] for lack in lacking):
                self._copy(folder, index % self.size, wanted=lacking[self.rank][index])

    def _copy(self, folder: Path, source: int, *, wanted: bool) -> None:
        found = sorted(path for path in folder.rglob("*") if path.is_file()) if self.rank == source else []
        names = self.broadcast([path.relative_to(folder) for path in found], source)
        partial = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
        for number, name in enumerate(names):
            content = self.broadcast(found[number].read_bytes() if found else b"", source)
            with self.sync_errors():
                if wanted:
                    with disk_errors(partial):
                        (partial / name).parent.mkdir(parents=True, exist_ok=True)
                        (partial / name).write_bytes(content)
        if wanted:
            with suppress(OSError):  # another process of this machine was quicker
                partial.rename(folder)
            shutil.rmtree(partial, ignore_errors=True)


class Processes(World):
    """Several processes; objects go over gloo, tensors over the backend of their device."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def agree(self, error: UserError | None) -> None:
        import torch
        import torch.distributed as dist

        failed = torch.tensor([error is not None], dtype=torch.int32)
        with _collective_errors():
            dist.all_reduce(failed)
        if failed.item():
            said = self.gather(None if error is None else (error.what, error.fix))
            raise CollectiveError(*next(words for words in said if words)) from error

    def sum(self, parts: Sequence[Tensor]) -> list[Tensor]:
        import torch
        import torch.distributed as dist

        whole = torch.cat([part.reshape(-1) for part in parts])
        with _collective_errors():
            dist.all_reduce(whole)
        pieces = whole.split([part.numel() for part in parts])
        return [piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)]

    def gather(self, value: T) -> list[T]:
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with _collective_errors():
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T, source: int = 0) -> T:
        import torch.distributed as dist

        values = [value]
        with _collective_errors():
            dist.broadcast_object_list(values, source)
        return values[0]


_WORLD: ContextVar[World] = ContextVar("world", default=World())  # noqa: B039  nothing in it ever changes


def world() -> World:
    """The processes at the present work."""
    return _WORLD.get()


@contextmanager
def single_process() -> Iterator[None]:
    """Work that a process does by itself, whatever the others do meanwhile."""
    before = _WORLD.set(World())
    try:
        yield
    finally:
        _WORLD.reset(before)


def is_distributed() -> bool:
    """Whether ``torchrun`` started several processes, of which this is one."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_rank_zero() -> bool:
    """Whether it is this process that tells the user anything."""
    return int(os.environ.get("RANK", 0)) == 0


def is_last_attempt() -> bool:
    """Whether ``torchrun`` will not start this process again if it fails."""
    again, most = (int(os.environ.get(f"TORCHELASTIC_{name}", 0)) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return again >= most


def is_initialized() -> bool:
    """Whether this process is joined to others; after an error it stays so."""
    if not is_distributed():
        return False
    import torch.distributed as dist

    return dist.is_initialized()


def exit_process(code: int) -> NoReturn:
    """End a process that was one of several, at once: threads that PyTorch leaves behind may abort an orderly end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def joined() -> Iterator[World]:
    """Find the processes that ``torchrun`` started, and be one of them; without it, be alone."""
    if not is_distributed():
        yield world()
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if cards := torch.cuda.device_count():
        local, beside = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        torch.cuda.set_device(local % cards)
        # NCCL refuses two processes on one card.
        backend = "cpu:gloo,cuda:nccl" if beside <= cards else "cpu:gloo,cuda:gloo"
    with _collective_errors():
        store, rank, size = next(dist.rendezvous("env://", timeout=_COLLECTIVE_TIMEOUT))
        fresh = dist.PrefixStore(_attempt(store, rank, size), store)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=_COLLECTIVE_TIMEOUT)
    before = _WORLD.set(Processes(rank, size))
    try:
        yield world()
    finally:
        _WORLD.reset(before)
    dist.destroy_process_group()  # of an error nobody takes leave: the others may be gone


def _attempt(store: Store, rank: int, size: int) -> str:
    """A name that the processes of this attempt agree on.

    ``torchrun`` keeps its store when it starts processes again, with the addresses of those that are gone. So rank 0
    makes a name, and the others take it for good once rank 0 has answered what they say under it.
    """
    own = secrets.token_hex(8)
    if rank == 0:
        store.set("attempt", own)
        for other in range(1, size):
            asked = store.get(f"{own}/{other}").decode()
            store.set(f"{own}/{asked}", "")
        return own
    while True:
        name = store.get("attempt").decode()
        store.set(f"{name}/{rank}", own)
        if store.check([f"{name}/{own}"]):
            return name
        time.sleep(_POLL)


@contextmanager
def _collective_errors() -> Iterator[None]:
    """What PyTorch says when a connection breaks, as :class:`PeerLostError`."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(f"Another process of this work is gone ({error}).") from error
