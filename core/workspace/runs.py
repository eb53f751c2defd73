"""Store results as folders that are found by the hash of their parameters, so that nothing is computed twice.

A finished run is ``runs/<kind>-<12 hex digits of the cache key's hash>/`` with ``config.json`` (the cache key),
``provenance.json`` and the files of its kind. The name of an unfinished run starts with a dot; the steps that it stored
(:meth:`RunWriter.save_step`) let the next attempt resume.

In distributed work the disk of rank 0 decides (:mod:`core.runtime.distributed`); the other processes store only the
parts of steps that they computed (:meth:`RunWriter.memory`).
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core import __version__
from core.runtime.clock import timestamp
from core.runtime.disk_errors import disk_errors
from core.runtime.distributed import world
from core.runtime.errors import TransientError, UserError
from core.runtime.files import file_version, write_json
from core.runtime.hashing import content_hash
from core.runtime.replacing import delete_scratch, exchange, flush_to_disk, replacing
from core.runtime.sequence import next_number
from core.runtime.stored import check_table, read_stored, read_table
from core.workspace.leftovers import delete_leftovers, locked
from core.workspace.run_files import JSON_FILES, Provenance, shape_of
from core.workspace.run_tables import TABLES, TableShape

MEMORY = "memory"
CONFIG, PROVENANCE = "config.json", "provenance.json"
_AGAIN = "Delete the run and compute it again."
_NAME = re.compile(r"[^.].*-[0-9a-f]{12}")
_RECOMPUTED: ContextVar[str] = ContextVar("_RECOMPUTED", default="")
"""Id of the run that is computed again (:func:`recomputing`); empty: none."""


@dataclass(frozen=True)
class Run:
    """A finished run, whose files are read-only."""

    folder: Path

    @property
    def id(self) -> str:
        """Return its id, the name of its folder."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """Return what was computed, for example ``rank``."""
        return self.id.rsplit("-", 1)[0]

    def json(self, name: str) -> Any:
        """Return the content of one of its JSON files; callers share the object and must not modify it.

        Raises:
            UserError: the file is missing or damaged, or its content is not of the shape that
                :mod:`core.workspace.run_files` declares.
        """
        if name == CONFIG:
            return self.config
        if name == PROVENANCE:
            return self.provenance
        return read_stored(self.folder / name, shape_of(JSON_FILES, self.kind, name) or Any, fix=_AGAIN)

    def table(self, name: str) -> pd.DataFrame:
        """Return one of its parquet tables.

        Raises:
            UserError: the file is missing or damaged, or lacks columns that :mod:`core.workspace.run_tables` declares.
        """
        path, shape = self.folder / name, shape_of(TABLES, self.kind, name) or TableShape({}, may_be_empty=True)
        table = read_table(path, may_be_empty=True, fix=_AGAIN)
        check_table(table, shape.columns, path, optional=shape.optional, may_be_empty=shape.may_be_empty, fix=_AGAIN)
        return table

    @property
    def config(self) -> dict[str, Any]:
        """Return its kind and cache key; raise UserError if they are not those that its folder is named by."""
        path = self.folder / CONFIG
        return _config(path, file_version(path))

    @property
    def provenance(self) -> Provenance:
        """Return when and how it was computed; raise UserError if the file is missing or damaged."""
        return read_stored(self.folder / PROVENANCE, Provenance, fix=_AGAIN)

    @property
    def finished(self) -> str:
        """Return when it was finished: UTC, ISO 8601 with milliseconds (whole seconds in runs of earlier versions)."""
        return self.provenance["finished"]

    @property
    def sequence(self) -> int:
        """Return its number among the finished runs of the workspace; 0 in runs of earlier versions."""
        return self.provenance.get("sequence", 0)

    @property
    def is_precomputed(self) -> bool:
        """Return whether it was not computed here, but came with a demo."""
        return self.provenance.get("precomputed", False)

    @property
    def command(self) -> list[str]:
        """Return the program that computed it and its arguments."""
        return list(self.provenance.get("command", []))

    @property
    def processor_seconds(self) -> float:
        """Return the processor time of rank 0 in the last attempt, which other load on the machine does not change."""
        return self.provenance.get("processor_seconds", float("nan"))


@lru_cache(maxsize=32_768)
def _config(path: Path, version: tuple[int, int, int]) -> dict[str, Any]:
    """Return the content of a ``config.json``, whose hash is the name of its folder."""
    config = read_stored(path, dict[str, Any], fix=_AGAIN)
    if _name_of(config) != path.parent.name:
        raise UserError(f"{path} is not the configuration that its folder is named by.", _AGAIN)
    return config


def _name_of(config: Mapping[str, Any]) -> str:
    return f"{config.get('kind')}-{content_hash({**config})[:12]}"


@dataclass(frozen=True)
class StepCache:
    """A folder of arrays by key, which an interrupted attempt leaves for the next one."""

    folder: Path

    def get(self, key: str) -> list[np.ndarray] | None:
        """Return the arrays stored under ``key``, or ``None``."""
        path = self.folder / f"{key}.npz"
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return [arrays[name] for name in arrays.files]
        except Exception:  # NumPy and zipfile raise errors of many kinds about a damaged file
            with suppress(OSError):
                path.unlink()  # truncated by a power failure: computed again
            return None

    def put(self, key: str, arrays: list[np.ndarray]) -> None:
        """Store arrays under ``key``."""
        with replacing(self.folder / f"{key}.npz", durable=False) as temporary, temporary.open("wb") as stream:
            np.savez(stream, *arrays)


@contextmanager
def recomputing(run: Run) -> Iterator[None]:
    """Within the block, count ``run`` as missing, so that its action computes it again and then replaces it.

    The stored run stays until the new one is finished.
    """
    token = _RECOMPUTED.set(run.id)
    try:
        yield
    finally:
        _RECOMPUTED.reset(token)


class RunWriter:
    """A writer of a run that is being computed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._steps = folder, 0
        self.seconds: dict[str, float] = {}

    def save_step(self, compute: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Compute and store one step, or return what an earlier, interrupted attempt stored.

        Steps are identified by their order, so every attempt must request the same steps in the same order.
        """
        steps, key, group = StepCache(self.folder / MEMORY), f"{self._steps:06d}", world()
        self._steps += 1
        stored = group.on_rank_zero(lambda: steps.get(key))
        if stored is not None:
            return stored
        computed = [np.asarray(value) for value in compute()]
        group.on_rank_zero(lambda: steps.put(key, computed))
        return computed

    def memory(self) -> StepCache:
        """Return a store for the parts, by key, of one step, which is identified as those of :meth:`save_step`."""
        self._steps += 1
        return StepCache(self.folder / MEMORY / f"{self._steps - 1:06d}")

    def clear_steps(self) -> None:
        """Delete the stored steps."""
        shutil.rmtree(self.folder / MEMORY, ignore_errors=True)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage in ``provenance.json``."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)

    def write(self, write: Callable[[Path], None]) -> None:
        """Call ``write`` with the folder of the run, on rank 0."""
        world().on_rank_zero(lambda: write(self.folder))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file into the run."""
        self.write(lambda folder: write_json(folder / name, value))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table into the run as parquet, without its index."""

        def write(folder: Path) -> None:
            with replacing(folder / name) as temporary:
                table.to_parquet(temporary, index=False)

        self.write(write)


class Runs:
    """A collection of the runs of a workspace; ``waits``: wait for one that another process computes, not refuse."""

    def __init__(self, folder: Path, *, waits: bool = False) -> None:
        self.folder, self._waits = folder, waits

    def find(self, kind: str, key: Mapping[str, Any]) -> Run | None:
        """Return the finished run with this cache key, or ``None``."""
        folder = self.folder / self._name(kind, key)
        return Run(folder) if _is_finished(folder) else None

    def all(self, kind: str, key: Mapping[str, Any] | None = None) -> list[Run]:
        """Return the finished runs of a kind whose cache keys have all the entries of ``key``, newest first.

        Runs whose description is damaged are left out (:meth:`damaged`). Those of earlier versions, which have no
        number, are older than all others, and ordered by their time.
        """
        runs = [run for run in self._intact(f"{kind}-*") if run.kind == kind]
        if key:
            runs = [run for run in runs if key.items() <= run.config.items()]
        return sorted(runs, key=lambda run: (run.sequence, run.finished), reverse=True)

    def damaged(self) -> list[UserError]:
        """Return an error for every finished run whose configuration or provenance cannot be read."""
        return [error for _, error in self._scan("*-*") if error is not None]

    def _intact(self, pattern: str) -> list[Run]:
        return [run for run, error in self._scan(pattern) if error is None]

    def _scan(self, pattern: str) -> Iterator[tuple[Run, UserError | None]]:
        for folder in sorted(self.folder.glob(pattern)):
            if _NAME.fullmatch(folder.name) and folder.is_dir():
                run = Run(folder)
                try:
                    _ = run.config, run.provenance
                except UserError as error:  # one damaged run must not hide the others
                    yield run, error
                else:
                    yield run, None

    def get(self, run_id: str) -> Run:
        """Return the finished run of that id; raise UserError if there is none."""
        folder = self.folder / run_id
        if not run_id or Path(run_id).name != run_id or run_id.startswith(".") or not folder.is_dir():
            raise UserError(f"There is no run {run_id!r} in this workspace.", "Use the name of a folder in runs/.")
        return Run(folder)

    def collect_distributed(self, ids: Sequence[str]) -> list[Run]:
        """Return runs that single processes finished (:meth:`core.runtime.distributed.World.map_distributed`)."""
        world().share([self.folder / run_id for run_id in ids])
        return [self.get(run_id) for run_id in ids]

    def get_or_compute(self, kind: str, key: Mapping[str, Any], compute: Callable[[RunWriter], None]) -> Run:
        """Return the run with this cache key, computed unless stored; raise TransientError if it is being computed."""
        group, name = world(), self._name(kind, key)
        folder, writer = self.folder / name, RunWriter(self.folder / f".{name}")
        with ExitStack() as locks:
            if not group.on_rank_zero(lambda: _is_finished(folder) or self._claim(name, locks)):
                started, clock = timestamp(), time.process_time()
                writer.write_json(CONFIG, {"kind": kind, **key})
                compute(writer)
                seconds = time.process_time() - clock
                group.on_rank_zero(lambda: self._finish(name, writer, started, seconds))
                if name == _RECOMPUTED.get():
                    _RECOMPUTED.set("")  # later requests within the same action find the new run
                group.on_rank_zero(lambda: delete_leftovers(self.folder))
        if group.rank:
            writer.clear_steps()
            with suppress(OSError):  # missing, or not empty
                writer.folder.rmdir()
        group.share([folder])
        return Run(folder)

    def _claim(self, name: str, locks: ExitStack) -> bool:
        """Lock a run against other processes; return whether one of them has finished it in the meantime."""
        if not locks.enter_context(locked(self.folder, name, waits=self._waits)):
            raise TransientError("This is being computed by another process.", "Wait for it to finish.")
        return _is_finished(self.folder / name)

    def _finish(self, name: str, writer: RunWriter, started: str, processor_seconds: float) -> None:
        import torch

        provenance = {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "started": started,
            "finished": timestamp(),
            "seconds": writer.seconds,
            "processor_seconds": round(processor_seconds, 3),
            "versions": {"tasklens": __version__, "python": platform.python_version(), "torch": torch.__version__},
            "threads": torch.get_num_threads(),
            "processes": world().size,
        }
        finished, replaced = self.folder / name, self.folder / f".{name}.replaced"
        with disk_errors(finished), next_number(self.folder, self._numbers) as sequence:
            write_json(writer.folder / PROVENANCE, provenance | {"sequence": sequence})
            writer.clear_steps()  # not before: with a full disk, the next attempt needs them
            delete_scratch(writer.folder)
            if finished.is_dir():  # computed again
                shutil.rmtree(replaced, ignore_errors=True)  # left by a process that was killed here
                writer.folder.rename(replaced)
                if not exchange(replaced, finished):
                    replaced.rename(writer.folder)
                    finished.rename(replaced)
                    writer.folder.rename(finished)
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                writer.folder.rename(finished)
            flush_to_disk(self.folder)

    def _numbers(self) -> list[int]:
        return [run.sequence for run in self._intact("*-*")]

    def _name(self, kind: str, key: Mapping[str, Any]) -> str:
        return _name_of({"kind": kind, **key})


def _is_finished(folder: Path) -> bool:
    """Return whether a run is stored in this folder and is not to be computed again."""
    return folder.is_dir() and folder.name != _RECOMPUTED.get()
