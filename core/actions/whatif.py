"""Open the estimator of what-ifs for a workspace."""

from __future__ import annotations

from core.actions.compute import Compute, load
from core.actions.preparation import find_preparation
from core.editing.prepared import PreparedFiles
from core.editing.whatif import WhatIfEstimator
from core.runtime.errors import UserError
from core.workspace.workspace import Workspace


def open_estimator(workspace: Workspace, compute: Compute) -> WhatIfEstimator:
    """Return the estimator for the workspace's present problem; open it once and reuse it.

    Raises:
        UserError: nothing is prepared for the problem, or a prepared file is damaged.
    """
    run = find_preparation(workspace, compute)
    if run is None:
        raise UserError("What-if estimates are not prepared for this problem.", "Run whatif --prepare.")
    basis = workspace.runs.get(run.json("report.json")["basis"]).folder
    return WhatIfEstimator(load(workspace.project(), compute), PreparedFiles(run.folder, basis))
