"""Ways to spoil a file of a home, and everything that reads the files of a home."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from core.actions.export import export_notes
from core.checkpoints.model import load_model
from core.data.store import damaged_image_sets, find, open_stored, stored_image_sets
from core.runtime.errors import UserError
from core.workspace.run_files import JSON_FILES, shape_of
from core.workspace.run_tables import TABLES
from core.workspace.workspace import Workspace

HUGE = 10**400
OTHERS: tuple[Any, ...] = (None, [], {}, "x", 0, -1, 1.5, True, float("nan"), HUGE, [[]], {"a": {}})
"""Values of other types, one of which a field is replaced by."""


@dataclass(frozen=True)
class Spoiling:
    """A way to spoil a file; ``names_file``: it must be named by an error, as nothing valid can be left in it."""

    file: Path
    name: str
    spoil: Callable[[Path], None]
    names_file: bool = False


def spoilings_of(file: Path) -> Iterator[Spoiling]:
    """Yield the ways to spoil a file."""
    for name, spoil in _ANY.items():
        yield Spoiling(file, name, spoil, names_file=True)
    if file.suffix == ".json":
        for name, text in _JSON.items():
            yield Spoiling(file, name, _writer(text), names_file=True)
        content = json.loads(file.read_text())
        for where in _places(content):
            path = ".".join(map(str, where))
            yield Spoiling(file, f"without {path}", partial(_change, where=where))
            for number, other in enumerate(OTHERS):
                if type(_value(content, where)) is not type(other):
                    yield Spoiling(file, f"{path} = {number}", partial(_change, where=where, value=other))
    elif file.suffix == ".parquet":
        yield Spoiling(file, "no rows", lambda path: _write_table(path, lambda table: table.head(0)))
        for column in pq.read_schema(file).names:
            yield Spoiling(file, f"without {column}", partial(_drop, column=column))
            for number in range(len(_columns(0))):
                yield Spoiling(file, f"{column} = {number}", partial(_retype, column=column, number=number))


def _writer(text: str) -> Callable[[Path], None]:
    return lambda path: _replace(path, text.encode())


def _write_table(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = change(pd.read_parquet(path))
    path.unlink()
    table.to_parquet(path, index=False)


def _drop(path: Path, column: str) -> None:
    _write_table(path, lambda table: table.drop(columns=column))


def _retype(path: Path, column: str, number: int) -> None:
    _write_table(path, lambda table: table.assign(**{column: _columns(len(table))[number]}))


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # a new inode, as any writer of ours makes
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


_ANY: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: _replace(path, b""),
    "cut": lambda path: _replace(path, path.read_bytes()[: max(1, path.stat().st_size // 2)]),
    "not UTF-8": lambda path: _replace(path, b"\xff\xfe\x00{"),
    "folder": _folder,
    "pipe": _pipe,
    "device": lambda path: (path.unlink(), path.symlink_to("/dev/zero"))[1],
}
_JSON = {
    "null": "null",
    "list": "[]",
    "number": "3",
    "text": '"x"',
    "object": "{}",
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"format":' * 900 + "1" + "}" * 900,
    "NaN": "NaN",
    "long number": "1" * 5000,
}


def _columns(n: int) -> list[np.ndarray]:
    """Return columns of ``n`` values of other kinds."""
    texts = np.array(["x"] * n, dtype=object)
    lists = np.array([None] * n, dtype=object)
    lists[:] = [["x"] for _ in range(n)]
    return [np.arange(n), texts, lists, np.array([None] * n, dtype=object), np.arange(n) > 3, np.full(n, np.nan)]


def _places(content: Any, depth: int = 3) -> Iterator[tuple[str | int, ...]]:
    entries = content.items() if isinstance(content, dict) else enumerate(content[:1]) if content else ()
    for key, value in entries:
        yield (key,)
        if depth > 1 and isinstance(value, dict | list):
            yield from ((key, *rest) for rest in _places(value, depth - 1))


def _value(content: Any, where: tuple[str | int, ...]) -> Any:
    for key in where:
        content = content[key]
    return content


_ABSENT = object()


def _change(path: Path, where: tuple[str | int, ...], value: Any = _ABSENT) -> None:
    content = json.loads(path.read_text())
    parent = _value(content, where[:-1])
    if value is _ABSENT:
        del parent[where[-1]]
    else:
        parent[where[-1]] = value
    _replace(path, json.dumps(content).encode())


@dataclass
class Seen:
    """What is found in a home: the errors of all readers, and the ids of what they listed."""

    errors: list[UserError]
    listed: set[str]


def read_everything(folder: Path, only: Path | None = None) -> Seen:
    """Read every file of a workspace, and of the library of the home, as pages and commands do.

    Args:
        only: The folder of the one run whose results are read; None: of all.
    """
    errors: list[UserError] = []
    listed: set[str] = set()
    with _collecting(errors):
        workspace = Workspace(folder)
        errors += workspace.damaged()
        with _collecting(errors):
            workspace.project()
        listed |= set(workspace.sets.names())
        for name in workspace.sets.names():
            workspace.sets.get(name)
        for job in workspace.jobs.all():
            listed.add(job.id)
            job.progress(), job.results(), job.is_refused()
            if job.status() == "failed":
                errors.append(UserError(job.error()))
        for kind in {path.name.rpartition("-")[0] for path in workspace.runs.folder.glob("*-*")}:
            for run in workspace.runs.all(kind):
                listed.add(run.id)
                for path in sorted(run.folder.iterdir()):
                    if only is not None and only != run.folder:
                        continue
                    with _collecting(errors):
                        if path.name == "model":
                            load_model(path)
                        if shape_of(JSON_FILES, run.kind, path.name):
                            run.json(path.name)
                        if shape_of(TABLES, run.kind, path.name):
                            run.table(path.name)
        with _collecting(errors):
            export_notes(folder / "exports" / "cleaned")
    errors += map(UserError, damaged_image_sets())
    for stored in stored_image_sets():
        listed.add(stored.folder.name)
        with _collecting(errors):
            open_stored(find(stored.name) or stored)
    return Seen(errors, listed)


class _collecting:
    def __init__(self, errors: list[UserError]) -> None:
        self.errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, UserError):
            self.errors.append(error)
            return True
        return False


def files_of(folder: Path) -> list[Path]:
    """Return the JSON files and tables of a folder that TaskLens reads by name."""
    names = {"decisions.sqlite"}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".json", ".parquet") and path.name not in names and "cleaned-tasks" not in path.name
    )


def restored(file: Path, spoiling: Spoiling) -> Any:
    """Return a context in which a file is spoilt."""
    return _Restored(file, spoiling)


class _Restored:
    def __init__(self, file: Path, spoiling: Spoiling) -> None:
        self.file, self.spoiling = file, spoiling
        self.backup = file.with_name(f".{file.name}.kept")

    def __enter__(self) -> None:
        shutil.copy2(self.file, self.backup)
        self.spoiling.spoil(self.file)

    def __exit__(self, *_: object) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self.file) if self.file.is_dir() else self.file.unlink()
        self.backup.rename(self.file)
