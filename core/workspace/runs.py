"""Results as folders, found again by what was asked, so that the same question is never computed twice.

A finished run is ``runs/<kind>-<12 hex digits of the question's hash>/`` with ``config.json`` (the question),
``provenance.json`` and what its kind writes. An unfinished one has a dot in front; what it remembers
(:meth:`Work.remember`) lets the next attempt go on where it stopped.

Where several processes work together, the disk of rank 0 is what counts (:mod:`core.distributed`); others keep only the
parts of steps that they did (:meth:`Work.memory`).
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from core import __version__
from core.clock import timestamp
from core.distributed import world
from core.errors import PassingError, UserError
from core.files import content_hash, replacing, write_json
from core.workspace.parsed import parsed

MEMORY = "memory"


@dataclass(frozen=True)
class Run:
    """A finished run: read-only results."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        return self.id.rsplit("-", 1)[0]

    def json(self, name: str) -> Any:
        """One of its JSON files; shared with other callers, so it must not be changed."""
        return parsed(self.folder / name)

    def table(self, name: str) -> pd.DataFrame:
        try:
            return pd.read_parquet(self.folder / name)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.folder / name} cannot be read: {error}.", "Delete the run and do it again."
            ) from error

    @property
    def config(self) -> dict[str, Any]:
        return self.json("config.json")

    @property
    def finished(self) -> str:
        """UTC, ISO 8601 with milliseconds (whole seconds in runs of earlier versions)."""
        return self.json("provenance.json")["finished"]

    @property
    def processor_seconds(self) -> float:
        """What the last attempt took of the processors of rank 0, which other work on the machine does not lengthen."""
        return float(self.json("provenance.json").get("processor_seconds", float("nan")))


@dataclass(frozen=True)
class Kept:
    """What an interrupted attempt left of the parts of one step."""

    folder: Path

    def get(self, key: str) -> list[np.ndarray] | None:
        return _read(self.folder / f"{key}.npz")

    def put(self, key: str, arrays: list[np.ndarray]) -> None:
        _write(self.folder / f"{key}.npz", arrays)


def _read(path: Path) -> list[np.ndarray] | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            return [kept[name] for name in kept.files]
    except (OSError, ValueError, EOFError, BadZipFile):
        path.unlink()  # cut short by a power failure: it is done again
        return None


def _write(path: Path, arrays: list[np.ndarray]) -> None:
    with replacing(path, durable=False) as temporary, temporary.open("wb") as stream:
        np.savez(stream, *arrays)


class Work:
    """A run in the making."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._steps, self.seconds = folder, 0, {}

    def remember(self, compute: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Do one step, or give back what it gave in an earlier, interrupted attempt.

        Steps are known by their order, so the same steps must be asked for in the same order.
        """
        path, here = self.folder / MEMORY / f"{self._steps:06d}.npz", world()
        self._steps += 1
        kept = here.first(lambda: _read(path))
        if kept is None:
            computed = [np.asarray(value) for value in compute()]
            here.first(lambda: _write(path, computed))
            return computed
        return kept

    def memory(self) -> Kept:
        """A place for the parts of one step, under names of their own.

        Like those of :meth:`remember`, steps are known by their order.
        """
        self._steps += 1
        return Kept(self.folder / MEMORY / f"{self._steps - 1:06d}")

    def forget(self) -> None:
        """Delete what was remembered."""
        shutil.rmtree(self.folder / MEMORY, ignore_errors=True)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the seconds of a stage for ``provenance.json``."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)

    def write(self, write: Callable[[Path], None]) -> None:
        """Have ``write`` put something into the folder it is given."""
        world().first(lambda: write(self.folder))

    def write_json(self, name: str, value: Any) -> None:
        self.write(lambda folder: write_json(folder / name, value))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        def write(folder: Path) -> None:
            with replacing(folder / name) as temporary:
                table.to_parquet(temporary, index=False)

        self.write(write)

    seconds: dict[str, float]


class Runs:
    """The runs of a workspace.

    Args:
        waits: Wait for another process that is at the same question, and take its answer, instead of refusing.
    """

    def __init__(self, folder: Path, *, waits: bool = False) -> None:
        self.folder, self._waits = folder, waits

    def find(self, kind: str, question: Mapping[str, Any]) -> Run | None:
        """The finished run that answers ``question``, if there is one."""
        folder = self.folder / self._name(kind, question)
        return Run(folder) if folder.is_dir() else None

    def all(self, kind: str) -> list[Run]:
        """Finished runs of a kind, newest first."""
        found = [Run(folder) for folder in self.folder.glob(f"{kind}-*") if (folder / "provenance.json").exists()]
        return sorted((run for run in found if run.kind == kind), key=lambda run: run.finished, reverse=True)

    def get(self, run_id: str) -> Run:
        folder = self.folder / run_id
        if not run_id or Path(run_id).name != run_id or run_id.startswith(".") or not folder.is_dir():
            raise UserError(f"There is no run {run_id!r} in this workspace.", "See the ids in its folder runs.")
        return Run(folder)

    def dealt(self, ids: Sequence[str]) -> list[Run]:
        """Finished runs that processes did each by itself (:meth:`core.distributed.World.deal`)."""
        world().share([self.folder / run_id for run_id in ids])
        return [self.get(run_id) for run_id in ids]

    def answer(self, kind: str, question: Mapping[str, Any], compute: Callable[[Work], None]) -> Run:
        """The run that answers ``question``: from the store, or computed now.

        Raises:
            PassingError: another process is at the same question.
        """
        here, name = world(), self._name(kind, question)
        folder, work = self.folder / name, Work(self.folder / f".{name}")
        with ExitStack() as held:
            if not here.first(lambda: folder.is_dir() or self._claim(name, held)):
                started, clock = timestamp(), time.process_time()
                work.write_json("config.json", {"kind": kind, **question})
                compute(work)
                spent = time.process_time() - clock
                here.first(lambda: self._finish(name, work, started, spent))
        if here.rank:
            work.forget()
            with suppress(OSError):  # not there, or not empty
                work.folder.rmdir()
        here.share([folder])
        return Run(folder)

    def _claim(self, name: str, held: ExitStack) -> bool:
        """Keep other processes from a question; whether one of them has answered it meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = held.enter_context((self.folder / f".{name}.lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if self._waits else fcntl.LOCK_NB))
        except OSError as error:
            raise PassingError("This is being computed by another process.", "Wait for it to finish.") from error
        return (self.folder / name).is_dir()

    def _finish(self, name: str, work: Work, started: str, spent: float) -> None:
        work.forget()
        write_json(work.folder / "provenance.json", _provenance(started, work.seconds, spent))
        work.folder.rename(self.folder / name)
        (self.folder / f".{name}.lock").unlink(missing_ok=True)

    def _name(self, kind: str, question: Mapping[str, Any]) -> str:
        return f"{kind}-{content_hash({'kind': kind, **question})[:12]}"


def _provenance(started: str, seconds: dict[str, float], spent: float) -> dict[str, Any]:
    import torch

    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": started,
        "finished": timestamp(),
        "seconds": seconds,
        "processor_seconds": round(spent, 3),
        "versions": {"tasklens": __version__, "python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "processes": world().size,
    }
