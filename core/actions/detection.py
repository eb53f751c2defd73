"""Compare a ranking with the injected label noise of a workspace."""

from __future__ import annotations

import pandas as pd

from core.evidence.detection import detection
from core.workspace.runs import Run
from core.workspace.workspace import Workspace


def detection_of(workspace: Workspace, run: Run) -> pd.DataFrame | None:
    """Return how well a ranking finds the injected label noise; None where none was injected."""
    planted = workspace.project().tasks.planted
    if planted is None:
        return None
    return detection(planted, run.table("tasks.parquet"), run.table("instances.parquet"), run.table("images.parquet"))
