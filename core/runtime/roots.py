"""The folders below which the dashboard, and the jobs that it starts, read the paths that people give."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from core.runtime.errors import UserError
from core.runtime.files import home

ROOTS_VARIABLE = "TASKLENS_ROOTS"
"""Environment variable with the roots, separated as in ``PATH``; unset: every path may be read."""

OWN_DATA = Path(__file__).resolve().parents[2] / "assets"
"""The demos and other files of the program itself, which may be read wherever it is installed."""


def restrict(folders: Iterable[Path]) -> None:
    """Let this process and those that it starts read only below these folders and the folder of TaskLens.

    Raises:
        UserError: the name of a folder has a colon, so that it would count as two folders.
    """
    names = [str(folder.expanduser().resolve()) for folder in folders]
    for name in names:
        if os.pathsep in name:
            raise UserError(
                f"The dashboard cannot be limited to {name}, as its name has a colon.",
                "Rename the folder, or allow others instead with --root FOLDER.",
            )
    os.environ[ROOTS_VARIABLE] = os.pathsep.join(names)


def roots() -> tuple[Path, ...]:
    """Return the folders below which paths may be read; empty: anywhere."""
    given = os.environ.get(ROOTS_VARIABLE)
    if given is None:
        return ()
    return (*(Path(one) for one in given.split(os.pathsep) if one), home().resolve(), OWN_DATA)


def is_below_roots(path: Path) -> bool:
    """Return whether the place of ``path`` after following symbolic links may be read."""
    allowed = roots()
    return not allowed or any(Path(os.path.realpath(path)).is_relative_to(root) for root in allowed)


def check_below_roots(path: Path) -> Path:
    """Return ``path``, whose place after following symbolic links is below a root.

    Raises:
        UserError: it is not; the message does not say whether the path exists.
    """
    if is_below_roots(path):
        return path
    raise UserError(
        f"{path} is outside the folders that the dashboard may read: {', '.join(map(str, roots()[:-1]))}.",
        "Start the dashboard with --root FOLDER to allow another folder, or use the command line.",
    )
