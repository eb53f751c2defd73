"""The command that compares rankings with retraining."""

from __future__ import annotations

from core.cli.common import announce_device, live_progress, message, open_workspace
from core.cli.options import DEFAULT_WORKSPACE, WorkspaceOption, with_settings
from core.evidence.settings import EvidenceSettings
from core.maml.settings import Compute


@with_settings
def evidence(*, workspace: WorkspaceOption = DEFAULT_WORKSPACE, settings: EvidenceSettings, compute: Compute) -> None:
    """Evaluate rankings against retraining.

    How well does each method predict the loss of models retrained on subsets of the tasks? An interrupted run is
    resumed. Retrained models are shared by all methods and by later runs.
    """
    from core.actions.evidence import evidence as compute_evidence

    run = compute_evidence(open_workspace(workspace), settings, announce_device(compute), live_progress())
    table = run.table("methods.parquet").drop(columns=["words", "note", "kind"])
    message(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(run.folder)
