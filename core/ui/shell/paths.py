"""Turn what people type or paste into path fields into paths below the folders that may be read."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetools import TTLCache

from core.runtime.errors import TransientError, UserError
from core.runtime.roots import check_below_roots
from core.runtime.timeouts import call_within
from core.ui.shell.guard import show_error

_ANSWER_SECONDS = 2.0
"""How long the disk may take to resolve a path; a network folder that hangs takes for ever."""
_FORGET_SECONDS = 60.0
_silent: TTLCache[Path, bool] = TTLCache(256, _FORGET_SECONDS)
"""Paths whose disk did not answer: each rerun of the page would wait for them again."""
_lock = threading.Lock()


@dataclass(frozen=True)
class PathEntry:
    """What a path field has: a path, or None if it is empty or refused; the error is then shown."""

    path: Path | None
    is_refused: bool = False


def path_input(place: Any, label: str, **options: Any) -> PathEntry:
    """Draw a text input for a path, with an error below if what was entered is refused."""
    entered = place.text_input(label, **options)
    try:
        return PathEntry(entered_path(entered or ""))
    except UserError as error:
        with place.container():
            show_error(error)
        return PathEntry(None, is_refused=True)


def entered_path(text: str) -> Path | None:
    """Return the path that a text names, or None for an empty one.

    Quotes around it are removed, as file managers copy paths in quotes; ``~`` is the home folder; a relative path is
    one below the working folder.

    Raises:
        UserError: it is not a path, or is outside the folders that may be read, whether or not it exists.
        TransientError: its disk does not answer.
    """
    text = text.strip().strip("\"'").strip()
    if not text:
        return None
    if "\0" in text or len(text) > 4096:
        raise UserError("This is not a path.", "Enter the path of a file or folder.")
    try:
        path = Path.cwd() / Path(text).expanduser()
    except RuntimeError as error:  # ~name of an unknown user
        raise UserError(f"{text} names no home folder.", "Enter the whole path.") from error
    return _check(path)


def _check(path: Path) -> Path:
    """Return the path if it is allowed; following its links reads the disk, which may not answer."""
    with _lock:
        is_silent = path in _silent
    if not is_silent:
        try:
            return call_within(_ANSWER_SECONDS, lambda: check_below_roots(path))
        except TimeoutError:
            with _lock:
                _silent[path] = True
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not a path: {error}.", "Enter the path of a file or folder.") from error
    raise TransientError(f"The disk of {path} does not answer.", "Check the path, and that its drive is connected.")
