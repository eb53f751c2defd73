"""Options that name changes, and the printing of results, which the commands about what-ifs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from core.editing.whatif import WhatIfEstimator
    from core.influence.targets import Target
    from core.tasks.changes import Changes
    from core.workspace.workspace import Workspace

TasksOption = Annotated[
    str, typer.Option(help="Ids of tasks to remove, separated by commas, instead of the reviewers' decisions.")
]
ImagesOption = Annotated[
    str, typer.Option(help="Ids of images to remove, separated by commas, instead of the reviewers' decisions.")
]
RelabelOption = Annotated[
    list[str] | None,
    typer.Option(help="IMAGE=CLASS: an image to relabel, instead of the reviewers' decisions. Repeatable."),
]


def named_changes(tasks: str, images: str, relabel: list[str] | None) -> Changes:
    """Return the changes that the three options name."""
    from core.tasks.changes import Changes

    removed = [[name for name in text.split(",") if name] for text in (tasks, images)]
    return Changes.named(removed[0], removed[1], relabel or [])


def workspace_changes(workspace: Workspace, named_set: str) -> Changes:
    """Return the changes of a named set, or without a name those that reviewers decided."""
    return workspace.sets.get(named_set).changes if named_set else workspace.changes()


def estimate_text(report: dict[str, Any], residual: float, seconds: float) -> str:
    """Return the line that marks what follows as an estimate."""
    return (
        f"estimate by a basis of rank {report['rank']}, not a measurement; residual {residual:.0%}, "
        f"{1000 * seconds:.0f} ms"
    )


def print_changes(changes: Changes) -> None:
    """Print one item per line: its kind, its name, and the new class if it is relabelled."""
    for kind in ("tasks", "images", "instances"):
        for name in sorted(getattr(changes, kind)):
            print(f"{kind[:-1]}\t{name if isinstance(name, str) else '/'.join(name)}")
    for kind in ("relabelled_images", "relabelled_instances"):
        for *name, new in sorted(getattr(changes, kind)):
            print(f"{kind.removeprefix('relabelled_')[:-1]}\t{'/'.join(name)}\t{new}")


def print_extremes(table: pd.DataFrame, column: str, top: int, kind: str = "") -> None:
    """Print the most harmful and the most helpful items of a table that has the most harmful first."""
    for effect, part in (("harmful", table.head(top)), ("helpful", table.tail(top)[::-1])):
        for name, score in zip(part[column], part["score"], strict=True):
            print("\t".join(filter(None, (effect, kind, name, f"{score:+.3g}"))))


def print_whatif(estimator: WhatIfEstimator, changes: Changes, target: Target | None = None) -> None:
    """Print the estimated effect of changes on the held-out tasks, and on one target."""
    result = estimator.changes(changes, target)
    print(estimate_text(estimator.report, result.residual, result.seconds))
    print(f"with {changes.words}: held-out accuracy {result.accuracy.text('.3f')}")
    print(f"change of accuracy {result.accuracy_change.text('+.3f')}")
    print(f"change of loss {result.loss_change.text('+.4f')}")
    print(f"change of loss to first order {result.predicted_loss_change:+.4f}")
    if (effect := result.target) is not None:
        print(
            f"loss of {target}: {effect.loss:.4f}, then {effect.loss_after:.4f} "
            f"({effect.loss_predicted:.4f} to first order)"
        )
        if effect.probability is not None:
            print(
                f"probability of its class: {effect.probability:.1%}, then {effect.probability_after:.1%} "
                f"({effect.probability_predicted:.1%} to first order)"
            )
