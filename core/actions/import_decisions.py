"""Import decisions from a file: plan first, then write all of it or nothing."""

from __future__ import annotations

from pathlib import Path

from core.decisions.import_file import ImportPlan, read_decision_file, write_import
from core.decisions.import_file import plan_import as plan_of_file
from core.workspace.workspace import Workspace


def plan_import(
    workspace: Workspace, path: Path, *, reviewer: str = "", as_: str = "unsure", by_position: bool = False
) -> ImportPlan:
    """Return what :func:`import_decisions` would do (:func:`core.decisions.import_file.read_decision_file`)."""
    project = workspace.project()
    file = read_decision_file(
        path, project.images, project.tasks.train, reviewer=reviewer, as_=as_, by_position=by_position
    )
    return plan_of_file(workspace.decisions, file)


def import_decisions(
    workspace: Workspace, path: Path, *, reviewer: str = "", as_: str = "unsure", by_position: bool = False
) -> ImportPlan:
    """Write the decisions and comments of a file to the log, or after a UserError nothing; return what was written."""
    plan = plan_import(workspace, path, reviewer=reviewer, as_=as_, by_position=by_position)
    write_import(workspace.decisions, plan)
    return plan
