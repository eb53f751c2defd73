"""Define the storage protocols of the engine for results and resumable steps, independent of a workspace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.maml.episodes import ChunkCache

SaveStep = Callable[[Callable[[], Sequence[np.ndarray]]], list[np.ndarray]]
"""The type of :meth:`StepWriter.save_step`."""


class StepWriter(Protocol):
    """A computation in progress that saves its steps, so that it resumes after an interruption."""

    def save_step(self, compute: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Return the arrays of the next step, in order of the calls, computed now or by an interrupted attempt."""

    def memory(self) -> ChunkCache | None:
        """Return a cache for the chunks of the next step; None if nothing is saved."""

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Record the duration of a stage, in seconds."""


class ResultWriter(StepWriter, Protocol):
    """A writer of a result in progress, with resumable steps."""

    @property
    def folder(self) -> Path:
        """Return the folder of the result."""

    def write(self, write: Callable[[Path], None]) -> None:
        """Call ``write`` with the folder, on one process only."""

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""


class StoredResult(Protocol):
    """A finished result."""

    @property
    def folder(self) -> Path:
        """Return the folder of the result."""


class ResultStore(Protocol):
    """A store of finished results by kind and cache key."""

    def get_or_compute(
        self, kind: str, question: Mapping[str, Any], compute: Callable[[ResultWriter], None]
    ) -> StoredResult:
        """Return the result of a cache key from the store, or compute and store it."""


class UnsavedSteps:
    """A :class:`StepWriter` that saves nothing, so an interrupted computation restarts from the beginning."""

    def save_step(self, compute: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Return the arrays of a step."""
        return [np.asarray(value) for value in compute()]

    def memory(self) -> None:
        """Return no cache."""

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()
