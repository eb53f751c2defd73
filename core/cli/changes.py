"""What the commands about what-ifs share: options, and how answers are printed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

TasksOption = Annotated[str, typer.Option(help="Ids of tasks to remove, with commas, instead of what is decided.")]
ImagesOption = Annotated[str, typer.Option(help="Ids of images to remove, with commas, instead of what is decided.")]
RelabelOption = Annotated[
    list[str] | None,
    typer.Option(help="IMAGE=CLASS: an image that gets another class; may be given several times."),
]


def named_changes(tasks: str, images: str, relabel: list[str] | None) -> Any:
    """What the options name."""
    from core.tasks.changes import Changes

    removed = [[name for name in text.split(",") if name] for text in (tasks, images)]
    return Changes.named(removed[0], removed[1], relabel or [])


def chosen_changes(opened: Any, named_set: str) -> Any:
    """The changes of a named set, else what reviewers decided."""
    return opened.sets.get(named_set).changes if named_set else opened.changes()


def estimate_words(report: dict[str, Any], residual: float, seconds: float) -> str:
    return (
        f"estimate by a basis of rank {report['rank']}, not a measurement; residual {residual:.0%}, "
        f"{1000 * seconds:.0f} ms"
    )


def print_changes(changes: Any) -> None:
    """One item a line: what it is, its name, and the new class of what is relabelled."""
    for kind in ("tasks", "images", "instances"):
        for name in sorted(getattr(changes, kind)):
            print(f"{kind[:-1]}\t{name if isinstance(name, str) else '/'.join(name)}")
    for kind in ("relabelled_images", "relabelled_instances"):
        for *name, new in sorted(getattr(changes, kind)):
            print(f"{kind.removeprefix('relabelled_')[:-1]}\t{'/'.join(name)}\t{new}")


def print_ends(table: Any, name: str, top: int, what: str = "") -> None:
    """The most harmful and the most helpful of a table that has the most harmful first."""
    for word, part in (("harmful", table.head(top)), ("helpful", table.tail(top)[::-1])):
        for one, score in zip(part[name], part["score"], strict=True):
            print("\t".join(filter(None, (word, what, one, f"{score:+.3g}"))))


def print_whatif(instant: Any, changes: Any, target: Any = None) -> None:
    """What changes are estimated to do."""
    found = instant.changes(changes, target)
    at, change, loss = found.accuracy, found.accuracy_change, found.loss_change
    print(estimate_words(instant.report, found.residual, found.seconds))
    print(f"with {changes.words}: held-out accuracy {at.mean:.3f} [{at.low:.3f}, {at.high:.3f}]")
    print(f"change of accuracy {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]")
    print(f"change of loss {loss.mean:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}]")
    print(f"change of loss to first order {found.predicted_loss_change:+.4f}")
    if (one := found.target) is not None:
        print(f"loss of {target}: {one.loss:.4f}, then {one.loss_after:.4f} ({one.loss_predicted:.4f} to first order)")
        if one.probability is not None:
            print(
                f"probability of its class: {one.probability:.1%}, then {one.probability_after:.1%} "
                f"({one.probability_predicted:.1%} to first order)"
            )
