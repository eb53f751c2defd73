"""The commands that evaluate a model, rank its training data, and compare rankings with retraining."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from core.cli.common import announce_device, interval_text, live_progress, message, open_workspace
from core.cli.options import DEFAULT_WORKSPACE, Fields, SelectedFields, WorkspaceOption, with_settings
from core.evidence.settings import EvidenceSettings
from core.influence.settings import Estimator, SolveSettings
from core.maml.settings import Compute


@with_settings
def evaluate(*, workspace: WorkspaceOption = DEFAULT_WORKSPACE, compute: Compute) -> None:
    """Measure the accuracy on the held-out tasks.

    Also reports how close the model is to a stationary point.
    """
    from core.actions.evaluate import evaluation

    run = evaluation(open_workspace(workspace), announce_device(compute), live_progress())
    summary = run.json("summary.json")
    message(
        f"held-out accuracy {interval_text(summary['accuracy'])} over {summary['tasks']} tasks, "
        f"gradient ratio {summary['stationarity']['ratio']:.1e}"
    )
    print(run.folder)


@with_settings
def rank_command(
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    target: Annotated[
        str,
        Option(help="Target: all, ids of held-out tasks separated by commas, or a query image as TASK/IMAGE."),
    ] = "all",
    method: Annotated[Fields, SelectedFields(Estimator, "name", with_defaults=True)],
    parts: Annotated[Fields, SelectedFields(Estimator, "gradient", "evaluation", "probes", "inner")],
    solve: Annotated[Fields, SelectedFields(SolveSettings)],
    compute: Compute,
) -> None:
    """Rank training tasks, instances and images by influence.

    Positive scores help, negative scores harm. Options without a default take that of the method.
    """
    from core.actions.rank import ranking
    from core.influence.methods import estimator
    from core.influence.targets import Target

    chosen = estimator(**method, **parts, **solve)
    run = ranking(open_workspace(workspace), Target.parse(target), chosen, announce_device(compute), live_progress())
    print(run.folder)


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
