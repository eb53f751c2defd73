"""Report the progress of long work: to a terminal on stderr, to a file that a page reads, or not at all."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TextIO

from annotated_types import Ge
from pydantic import Field, Strict

from core.runtime.errors import TransientError, shown
from core.runtime.files import write_text_atomically

PROGRESS_FILE_VARIABLE = "TASKLENS_PROGRESS"


@dataclass(frozen=True)
class ProgressState:
    """A snapshot of running work: ``done`` of ``total`` units of ``stage``; times in seconds."""

    stage: Annotated[str, Strict()]
    done: Annotated[int, Strict(), Ge(0)]
    total: Annotated[int, Strict(), Ge(0)]
    elapsed: Annotated[float, Strict(), Field(allow_inf_nan=False)]
    left: Annotated[float, Strict(), Field(allow_inf_nan=False)] | None
    note: Annotated[str, Strict()] = ""


class Progress:
    """A reporter of stages of work. This base class discards its reports, so library code can always call it."""

    def __init__(self) -> None:
        self._stage, self._done, self._total, self._start, self._note = "", 0, 0, time.monotonic(), ""
        self._already = 0

    def stage(self, name: str, total: int, *, done: int = 0) -> None:
        """Begin a stage of ``total`` units, ``done`` of which an earlier, interrupted run finished."""
        self._stage, self._total, self._start, self._note = name, total, time.monotonic(), ""
        self._done = self._already = done
        self._report(force=True)

    def advance(self, units: int = 1, note: str = "") -> None:
        """Add ``units`` finished units; ``note`` is a short figure worth watching (a residual, a loss)."""
        self._done += units
        self._note = note or self._note
        self._report(force=self._done >= self._total)

    def skip(self, units: int) -> None:
        """Add ``units`` that an earlier run finished; they are excluded from the speed of this one."""
        self._already += units
        self.advance(units)

    def state(self) -> ProgressState:
        """Return the present stage, its progress, and the estimated seconds left."""
        elapsed = time.monotonic() - self._start
        new = self._done - self._already
        left = elapsed / new * (self._total - self._done) if new > 0 else None
        return ProgressState(self._stage, self._done, self._total, elapsed, left, self._note)

    def _report(self, force: bool) -> None:
        """Discard the report."""


class LiveProgress(Progress):
    """A reporter to a stream and, if given, to a JSON file, at most about ten times per second."""

    def __init__(self, stream: TextIO | None = None, file: Path | None = None) -> None:
        super().__init__()
        self._stream, self._file, self._last = stream or sys.stderr, file, 0.0

    @classmethod
    def from_environment(cls) -> LiveProgress:
        """Return a reporter that also writes to the file named in the environment, as the dashboard's jobs do."""
        path = os.environ.get(PROGRESS_FILE_VARIABLE)
        return cls(file=Path(path) if path else None)

    def _report(self, force: bool) -> None:
        now = time.monotonic()
        interval = 0.1 if self._stream.isatty() or self._file else 5.0
        if not force and now - self._last < interval:
            return
        self._last = now
        state = self.state()
        with suppress(OSError, TransientError):  # a full disk, a closed terminal: the work itself goes on
            self._show(state)

    def _show(self, state: ProgressState) -> None:
        if self._file is not None:
            write_text_atomically(self._file, json.dumps(asdict(state)), durable=False)
        left = "" if state.left is None or state.done >= state.total else f", about {format_duration(state.left)} left"
        note = f"  {state.note}" if state.note else ""
        line = f"{state.stage}: {state.done}/{state.total}{left}{note}"
        if self._stream.isatty():
            end = "\n" if state.done >= state.total else ""
            self._stream.write(f"\r\x1b[K{line}{end}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def format_duration(seconds: float) -> str:
    """Format a duration, for example ``75.0 -> '1 min 15 s'``."""
    if seconds < 1:
        return "1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_names(names: Sequence[str], limit: int = 3) -> str:
    """Return text like ``'a', 'b', 'c' and 4 more``; long names are shortened."""
    listed = ", ".join(map(shown, names[:limit]))
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit:,} more"


def format_count(count: int, singular: str, plural: str = "") -> str:
    """Return a count with its noun, such as ``1 image`` or ``2,000 images``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def left_out_note(names: Sequence[str], what: str, why: str) -> str:
    """Return the sentence on files that are left out, with the names of the first."""
    return f"Left out: {format_count(len(names), what)}, {why}: {format_names(names)}."


class NamedProgress(Progress):
    """A reporter of work that is done more than once: the name of each stage says which time it is."""

    def __init__(self, outer: Progress, name: str) -> None:
        super().__init__()
        self._outer, self._name = outer, name

    def stage(self, name: str, total: int, *, done: int = 0) -> None:
        """Begin a stage."""
        self._outer.stage(f"{name}, {self._name}", total, done=done)

    def advance(self, units: int = 1, note: str = "") -> None:
        """Add finished units."""
        self._outer.advance(units, note)

    def skip(self, units: int) -> None:
        """Add units that an earlier run finished."""
        self._outer.skip(units)


class SubProgress(Progress):
    """A reporter of one part of a larger stage: the part counts as ``units`` units there, whatever its own stages."""

    def __init__(self, outer: Progress, units: int) -> None:
        super().__init__()
        self._outer, self._units, self._reported = outer, units, 0

    @property
    def has_begun(self) -> bool:
        """Whether a stage was reported; work that reports its stages and has begun none was read from the cache."""
        return bool(self._stage)

    def _report(self, force: bool) -> None:
        share = min(1.0, self._done / self._total) if self._total else 0.0
        self._advance_outer(max(self._reported, int(share * (self._units - 1))))

    def finish(self, note: str = "", *, is_cached: bool = False) -> None:
        """Mark this part as done; ``is_cached`` excludes it from the speed from which the time left is estimated."""
        if is_cached:
            self._outer.skip(self._units - self._reported)
            self._reported = self._units
        self._advance_outer(self._units, note)

    def _advance_outer(self, units: int, note: str = "") -> None:
        self._outer.advance(units - self._reported, note or self._note)
        self._reported = units
