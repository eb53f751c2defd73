"""Import decisions from a file: all of it or nothing."""

from __future__ import annotations

from pathlib import Path

from core.decisions.import_file import ImportPlan, import_file, read_decision_file
from core.workspace.workspace import Workspace


def plan_import(
    workspace: Workspace, path: Path, *, reviewer: str = "", as_: str = "unsure", by_position: bool = False
) -> ImportPlan:
    """Return what :func:`import_decisions` would do, after doing it on a copy of the log."""
    return _import(workspace, path, reviewer, as_, by_position, keep=False)


def import_decisions(
    workspace: Workspace, path: Path, *, reviewer: str = "", as_: str = "unsure", by_position: bool = False
) -> ImportPlan:
    """Write the decisions and comments of a file to the log, or after a UserError nothing; return what was written.

    The arguments are those of :func:`core.decisions.import_file.read_decision_file`.
    """
    return _import(workspace, path, reviewer, as_, by_position, keep=True)


def _import(workspace: Workspace, path: Path, reviewer: str, as_: str, by_position: bool, *, keep: bool) -> ImportPlan:
    project = workspace.project()
    file = read_decision_file(
        path, project.images, project.tasks.train, reviewer=reviewer, as_=as_, by_position=by_position
    )
    return import_file(workspace.decisions, file, keep=keep)
