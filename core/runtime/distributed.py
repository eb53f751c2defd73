"""Run one piece of work in several processes started by ``torchrun``; a single process is a world of size 1.

All processes run the same program on the same inputs and take the same decisions. They differ in three ways: each
computes its share of the tasks (:class:`core.maml.episodes.Episodes`) or of whole trainings
(:meth:`World.map_distributed`), sums are reduced over all of them, and only rank 0 reads stored results, writes new
ones and prints. Every machine needs the images, the tasks and the model, and nothing else.

What keeps them in step: work that may fail on one process runs inside :meth:`World.sync_errors`, or on rank 0 for all
(:meth:`World.on_rank_zero`). Every exchange first checks whether any process failed, so an error on one is raised on
all of them at the same place, and none waits for a process that has exited.
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

from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store

T = TypeVar("T")
Item = TypeVar("Item")

_COLLECTIVE_TIMEOUT = timedelta(days=7)  # a process with a smaller share waits for one that is still training
_POLL = 0.01  # seconds


class CollectiveError(UserError):
    """An error of one process that is raised on all of them."""


class PeerLostError(Exception):
    """Another process has exited; finished steps are stored and reused by the next attempt."""


class World:
    """A group of processes as one member sees it; this base class is a single process."""

    rank: int = 0
    size: int = 1

    def agree(self, error: UserError | None) -> None:
        """Raise on every process if any of them has an error."""
        if error is not None:
            raise error

    def sum(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums of tensors over processes, bitwise equal on all; shapes and dtypes must agree."""
        return list(parts)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, ordered by rank."""
        return [value]

    def broadcast(self, value: T, source: int = 0) -> T:
        """Return the value of process ``source`` on every process."""
        return value

    @contextmanager
    def sync_errors(self) -> Iterator[None]:
        """Raise :class:`CollectiveError` on all processes at the end of the block if it failed on one."""
        error = None
        try:
            yield
        except CollectiveError:
            raise
        except UserError as caught:
            error = caught
        self.agree(error)

    def on_rank_zero(self, do: Callable[[], T]) -> T:
        """Call ``do`` on rank 0 only and return its result on every process."""
        with self.sync_errors():
            value: Any = do() if self.rank == 0 else None
        return self.broadcast(value)

    def local_rank_zero_first(self, do: Callable[[], T]) -> T:
        """Call ``do`` on every process, but on each machine on local rank 0 before the others."""
        leads = int(os.environ.get("LOCAL_RANK", 0)) == 0
        with self.sync_errors():
            value = do() if leads else None
        return do() if value is None else value

    def rounds(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """Split items into rounds of one item per process, ordered by rank; only the last round may be short."""
        return [items[start : start + self.size] for start in range(0, len(items), self.size)]

    def map_distributed(self, items: Sequence[Item], do: Callable[[Item, int], T]) -> list[T]:
        """Call ``do`` once per item, each on a single process, and return all results in order on every process.

        ``do`` takes an item and the number of items in its round, whose progress rank 0 reports.
        """
        share = [(turn[self.rank], len(turn)) for turn in self.rounds(items) if self.rank < len(turn)]
        with self.sync_errors(), single_process():
            results = [do(item, count) for item, count in share]
        shares = self.gather(results)
        return [shares[index % self.size][index // self.size] for index in range(len(items))]

    def share(self, folders: Sequence[Path]) -> None:
        """Copy folders to machines that do not have them, where the disk is not shared.

        The folder at ``index`` comes from rank ``index % size``, as :meth:`map_distributed` assigns items.
        """
        missing = self.gather([not folder.is_dir() for folder in folders])
        for index, folder in enumerate(folders):
            if any(flags[index] for flags in missing):
                self._copy(folder, index % self.size, is_missing=missing[self.rank][index])

    def _copy(self, folder: Path, source: int, *, is_missing: bool) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if self.rank == source else []
        names = self.broadcast([path.relative_to(folder) for path in files], source)
        partial = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
        for number, name in enumerate(names):
            content = self.broadcast(files[number].read_bytes() if files else b"", source)
            with self.sync_errors():
                if is_missing:
                    with disk_errors(partial):
                        (partial / name).parent.mkdir(parents=True, exist_ok=True)
                        (partial / name).write_bytes(content)
        if is_missing:
            with suppress(OSError):  # another process of this machine was faster
                partial.rename(folder)
            shutil.rmtree(partial, ignore_errors=True)


class _Processes(World):
    """A group of several processes; objects travel over gloo, tensors over the backend of their device."""

    def __init__(self, rank: int, size: int) -> None:
        import torch
        import torch.distributed

        self.rank, self.size, self._torch = rank, size, torch

    def agree(self, error: UserError | None) -> None:
        failed = self._torch.tensor([error is not None], dtype=self._torch.int32)
        with _collective_errors():
            self._torch.distributed.all_reduce(failed)
        if failed.item():
            messages = self.gather(None if error is None else (error.what, error.fix))
            raise CollectiveError(*next(message for message in messages if message)) from error

    def sum(self, parts: Sequence[Tensor]) -> list[Tensor]:
        sums = list(parts)
        for dtype in dict.fromkeys(part.dtype for part in parts):
            places = [place for place, part in enumerate(parts) if part.dtype == dtype]
            whole = self._torch.cat([parts[place].reshape(-1) for place in places])
            with _collective_errors():
                self._torch.distributed.all_reduce(whole)
            totals = whole.split([parts[place].numel() for place in places])
            for place, total in zip(places, totals, strict=True):
                sums[place] = total.reshape(parts[place].shape)
        return sums

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        with _collective_errors():
            self._torch.distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T, source: int = 0) -> T:
        values = [value]
        with _collective_errors():
            self._torch.distributed.broadcast_object_list(values, source)
        return values[0]


_WORLD: ContextVar[World] = ContextVar("world", default=World())  # noqa: B039  a World is immutable


def world() -> World:
    """Return the group of processes that this one belongs to."""
    return _WORLD.get()


@contextmanager
def single_process() -> Iterator[None]:
    """Run the block as a single process, independently of the others."""
    token = _WORLD.set(World())
    try:
        yield
    finally:
        _WORLD.reset(token)


def is_distributed() -> bool:
    """Return whether this is one of several processes started by ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_rank_zero() -> bool:
    """Return whether this process reports to the user."""
    return int(os.environ.get("RANK", 0)) == 0


def is_last_attempt() -> bool:
    """Return whether ``torchrun`` has no restarts left for this process."""
    restarts, limit = (int(os.environ.get(f"TORCHELASTIC_{name}", 0)) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return restarts >= limit


def is_initialized() -> bool:
    """Return whether this process has joined a process group; it stays joined after an error."""
    if not is_distributed():
        return False
    import torch.distributed as dist

    return dist.is_initialized()


def wait_for_all() -> None:
    """Wait until every process has called this, or one is lost."""
    import torch
    import torch.distributed as dist

    with suppress(RuntimeError):
        dist.all_reduce(torch.zeros(1))


def exit_process(code: int) -> NoReturn:
    """Exit at once, without the interpreter's teardown, which threads left behind by PyTorch may abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def joined() -> Iterator[World]:
    """Join the process group that ``torchrun`` started; without ``torchrun``, stay a single process."""
    if not is_distributed():
        yield world()
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if cards := torch.cuda.device_count():
        local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        torch.cuda.set_device(local_rank % cards)
        # NCCL refuses two processes on one card.
        backend = "cpu:gloo,cuda:nccl" if local_size <= cards else "cpu:gloo,cuda:gloo"
    with _collective_errors():
        store, rank, size = next(dist.rendezvous("env://", timeout=_COLLECTIVE_TIMEOUT))
        fresh = dist.PrefixStore(_attempt(store, rank, size), store)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=_COLLECTIVE_TIMEOUT)
    token = _WORLD.set(_Processes(rank, size))
    try:
        yield world()
    finally:
        _WORLD.reset(token)
    dist.destroy_process_group()  # not after an error, when the other processes may have exited


def _attempt(store: Store, rank: int, size: int) -> str:
    """Return a name for this attempt that all its processes agree on.

    When ``torchrun`` restarts processes it keeps its store, with the addresses of those that have exited. So rank 0
    publishes a name, and each other process accepts it once rank 0 has acknowledged the token posted under it.
    """
    token = secrets.token_hex(8)
    if rank == 0:
        store.set("attempt", token)
        for other in range(1, size):
            posted = store.get(f"{token}/{other}").decode()
            store.set(f"{token}/{posted}", "")
        return token
    while True:
        name = store.get("attempt").decode()
        store.set(f"{name}/{rank}", token)
        if store.check([f"{name}/{token}"]):
            return name
        time.sleep(_POLL)


@contextmanager
def _collective_errors() -> Iterator[None]:
    """Convert PyTorch's errors about broken connections to :class:`PeerLostError`."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(f"Another process of this job has exited ({error}).") from error
