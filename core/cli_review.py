"""The commands of reviewing: ``python -m core review ...``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli_decisions import (
    REVIEWER,
    ItemOption,
    JsonOption,
    ReviewerOption,
    RoleOption,
    TaskOption,
    cell,
    class_names,
    comment_fields,
    fields,
    moment,
    named,
    named_items,
    print_comment,
    print_json,
    print_reversal,
    print_snapshot,
    row,
    the_queue,
)
from core.cli_shared import (
    DEFAULT_WORKSPACE,
    ChunkOption,
    DeviceOption,
    DtypeOption,
    WorkspaceOption,
    chosen_compute,
    live_progress,
    open_workspace,
)
from core.runtime.errors import UserError

if TYPE_CHECKING:
    from core.decisions.log import Decision
    from core.workspace.workspace import Workspace

review = typer.Typer(
    help="Find wrong labels, decide on them, and hand the decisions over.", no_args_is_help=True, rich_markup_mode=None
)


@review.command()
def queue(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    slow: Annotated[
        str, typer.Option(help="Slow scores to add, with commas: self_influence, harm, cross_validated.")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Times that tasks drawn for it rate every label.")] = 4,
    calibrate: Annotated[
        bool, typer.Option(help="Plant wrong labels on copies, to choose the ranking and foretell what is left.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Rank every label by how wrong it looks; the ranking is the one that finds planted wrong labels best."""
    from core.actions.queue import QueueSettings
    from core.actions.queue import queue as make

    settings = QueueSettings(tuple(filter(None, slow.split(","))), rounds, calibrate, seed)
    run = make(open_workspace(workspace), settings, chosen_compute(device, dtype, chunk), live_progress())
    print(run.folder)


@review.command()
def show(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    top: Annotated[int, typer.Option(min=0, help="Items to print.")] = 20,
) -> None:
    """What the newest queue found: how it ranks, how many wrong labels are left, and the most suspicious items."""
    from core.actions.queue import queue_summary_text, remaining_errors_text

    opened = open_workspace(workspace)
    run = the_queue(opened)
    for line in [*queue_summary_text(run), *remaining_errors_text(opened, run)]:
        print(line)
    for item in run.table("items.parquet").head(top).itertuples():
        where = "/".join(filter(None, (item.task_id, item.role, item.image_id)))
        chance = "" if item.probability != item.probability else f"wrong {item.probability:.0%}"
        row(item.rank + 1, where, f"given {item[6]}", f"suggested {item.suggested}", chance)


@review.command()
def decide(
    verdict: Annotated[str, typer.Option("--as", help="keep, remove, relabel, unsure or clear.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    item: ItemOption = None,
    task: TaskOption = "",
    role: RoleOption = "",
    first: Annotated[int, typer.Option(min=0, help="Decide on this many of the newest queue instead.")] = 0,
    label: Annotated[
        str | None,
        typer.Option(help="The new class, with --as relabel; with --first, left out: what the queue suggests."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept with the decision.")] = "",
    reviewer: ReviewerOption = REVIEWER,
    least_probability: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Of a --task with --as relabel: how probable a suggestion of the queue has to be."
        ),
    ] = 0.5,
    seen: Annotated[
        bool, typer.Option("--seen", help="You know what others decided, so this settles conflicts with them.")
    ] = False,
) -> None:
    """Decide on images, on an image in a task, on a task, or on the first items of the queue; prints the decisions.

    A task as a whole is relabelled as the queue suggests; rows that are decided already stay as they are.
    """
    from core.actions.decide import suggestions_of_task
    from core.decisions.checks import check_known, class_number
    from core.decisions.log import Decision
    from core.review.suggestions import first_items, undecided

    opened, items = open_workspace(workspace), named_items(item, task, role)
    if bool(first) == bool(items):
        raise UserError("It is not said what to decide on.", "Give either --item or --task, or --first.")
    if verdict == "relabel" and task and not item and label is None:
        every = suggestions_of_task(opened, the_queue(opened), task, least_probability)
        decisions = tuple(undecided(every, opened.decisions.current()))
        if not decisions:
            print(f"nothing to relabel; {len(every)} decided already")
            return
        _submit(opened, reviewer, decisions, seen)
        return
    chosen, source = [(one, label) for one in items], ""
    if first:
        queue = the_queue(opened)
        source = queue.id
        suggests = verdict == "relabel" and label is None
        chosen = [
            (one, class_name if suggests else label)
            for one, class_name in first_items(queue.table("items.parquet"), first)
        ]
    project = opened.project()
    numbers = {name: class_number(project.images, name) for _, name in chosen if name is not None}
    decisions = tuple(
        Decision(one, verdict, None if name is None else numbers[name], reason, reviewer, source)  # type: ignore[arg-type]
        for one, name in chosen
    )
    check_known(project.tasks.train, [one for one, _ in chosen])
    _submit(opened, reviewer, decisions, seen)


def _submit(opened: Workspace, reviewer: str, decisions: tuple[Decision, ...], seen: bool) -> None:
    """Append the decisions as one group, and print them."""
    from core.decisions.log import Operation

    log = opened.decisions
    log.submit([Operation("decide", reviewer, "", decisions, log.version() if seen else None)])
    words = class_names(opened)
    for decision in decisions:
        row(named(decision.item), words(decision))


@review.command()
def undo(workspace: WorkspaceOption = DEFAULT_WORKSPACE, reviewer: ReviewerOption = REVIEWER) -> None:
    """Take back your last decisions that still stand; again and again, as far as you like."""
    opened = open_workspace(workspace)
    print_reversal(opened, opened.decisions.undo(reviewer), "taken back", "Nothing to undo.")


@review.command()
def redo(workspace: WorkspaceOption = DEFAULT_WORKSPACE, reviewer: ReviewerOption = REVIEWER) -> None:
    """Put back what you undid last, unless you have decided something since."""
    opened = open_workspace(workspace)
    print_reversal(opened, opened.decisions.redo(reviewer), "put back", "Nothing to redo.")


@review.command()
def log(workspace: WorkspaceOption = DEFAULT_WORKSPACE, as_json: JsonOption = False) -> None:
    """Print everything ever decided, oldest first."""
    opened = open_workspace(workspace)
    words, history = class_names(opened), opened.decisions.history()
    if as_json:
        print_json(fields(entry, words) for entry in history)
        return
    row("number", "time", "group", "undoes", "by", "reviewer", "item", "decision", "reason", "source")
    for entry in history:
        undoes = "" if entry.undoes is None else entry.undoes
        people = cell(entry.by), cell(entry.reviewer)
        why = cell(entry.reason), cell(entry.source)
        row(entry.seq, entry.at, entry.group, undoes, *people, named(entry.item), words(entry), *why)


@review.command()
def conflicts(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Print the items about which reviewers differ without having seen each other's decisions."""
    opened = open_workspace(workspace)
    words = class_names(opened)
    for item, entries in opened.decisions.conflicts().items():
        row(named(item), ", ".join(f"{cell(entry.reviewer)}: {words(entry)}" for entry in entries))


@review.command()
def comment(
    text: Annotated[str, typer.Argument(help="What you have to say.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    item: ItemOption = None,
    task: TaskOption = "",
    role: RoleOption = "",
    reviewer: ReviewerOption = REVIEWER,
) -> None:
    """Say something about an image, an image in a task, or a task."""
    from core.decisions.checks import check_known

    opened, items = open_workspace(workspace), named_items(item, task, role)
    if len(items) != 1:
        raise UserError("A comment is about one thing.", "Give one --item, or --task.")
    check_known(opened.project().tasks.train, items)
    print_comment(opened.decisions.comment(items[0], reviewer, text))


@review.command()
def comments(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    item: ItemOption = None,
    task: TaskOption = "",
    role: RoleOption = "",
    as_json: JsonOption = False,
) -> None:
    """Print what was said about an item, or about all."""
    log, items = open_workspace(workspace).decisions, named_items(item, task, role)
    found = [comment for one in items for comment in log.comments(one)] if items else log.comments()
    if as_json:
        print_json(comment_fields(comment) for comment in found)
        return
    for comment in found:
        print_comment(comment)


@review.command()
def snapshot(
    name: Annotated[str, typer.Argument(help="A name that is not taken.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    note: Annotated[str, typer.Option(help="Kept with it.")] = "",
    reviewer: ReviewerOption = REVIEWER,
) -> None:
    """Give the present state of the decisions a name."""
    print_snapshot(open_workspace(workspace).decisions.snapshot(name, reviewer, note))


@review.command()
def snapshots(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Print the snapshots, oldest first."""
    for found in open_workspace(workspace).decisions.snapshots():
        print_snapshot(found)


@review.command()
def diff(
    before: Annotated[str, typer.Argument(help="Name of a snapshot, or number of a line of the log.")],
    after: Annotated[str, typer.Argument(help="Another; left out: now.")] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Print where the decisions of two states differ."""
    opened = open_workspace(workspace)
    decisions, words = opened.decisions, class_names(opened)
    found = decisions.difference(moment(decisions, before), moment(decisions, after) if after else None)
    for item, (old, new) in found.items():
        row(named(item), words(old), words(new))


@review.command()
def restore(
    name: Annotated[str, typer.Argument(help="Name of a snapshot.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    reviewer: ReviewerOption = REVIEWER,
) -> None:
    """Decide everything as it was in a snapshot; undo takes that back."""
    decisions = open_workspace(workspace).decisions
    group = decisions.restore(name, reviewer).group
    changed = sum(entry.group == group for entry in decisions.history())
    print(f"decisions changed: {changed}")


@review.command()
def agreement(
    one: Annotated[str, typer.Argument(help="A reviewer.")],
    two: Annotated[str, typer.Argument(help="Another.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Print how far two reviewers agree, and where they differ."""
    from core.decisions.agreement import agreement as measured

    opened = open_workspace(workspace)
    found, words = measured(opened.decisions, one, two), class_names(opened)
    print(f"items decided by both: {found.items}, alike: {found.equal:.1%}")
    if found.kappa == found.kappa:
        print(f"Cohen's kappa {found.kappa:.2f} [{found.low:.2f}, {found.high:.2f}]")
    else:
        print("Cohen's kappa is not defined, as both said the same of all items")
    for first, second in found.differing:
        row(named(first.item), f"{cell(one)}: {words(first)}", f"{cell(two)}: {words(second)}")


@review.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="csv, parquet or JSON: decisions, or a table of cleanlab's.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_: Annotated[
        str, typer.Option("--as", help="What an issue of cleanlab's becomes: unsure (to look at), remove or relabel.")
    ] = "unsure",
    reviewer: Annotated[
        str, typer.Option(help="Whose the decisions are that name nobody; default import, or cleanlab for cleanlab's.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and do nothing.")] = False,
) -> None:
    """Bring in decisions from a file, all or none; prints what was new and what was there."""
    from core.actions.import_decisions import import_decisions, plan_import

    act = plan_import if dry_run else import_decisions
    print("\n".join(act(open_workspace(workspace), file, reviewer=reviewer, as_=as_).sentences))


@review.command()
def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: exports/decisions of the workspace.")
    ] = None,
    formats: Annotated[str, typer.Option(help="csv, parquet and json, with commas.")] = "csv,parquet,json",
) -> None:
    """Write decisions, conflicts, corrected labels and comments with their provenance; prints the folder."""
    from core.actions.export_decisions import export_decisions

    opened = open_workspace(workspace)
    folder = out or opened.folder / "exports" / "decisions"
    print(export_decisions(opened, folder, formats=tuple(formats.split(","))))


@review.command()
def report(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: exports/review.html of the workspace.")
    ] = None,
) -> None:
    """Write the review as one HTML file with pictures, curves, figures and method; prints its path."""
    from core.actions.report import write_report

    opened = open_workspace(workspace)
    print(write_report(opened, out or opened.folder / "exports" / "review.html"))


@review.command()
def duplicates(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Look for images that occur twice, and for leaks; prints what was found and the folder of the run."""
    from core.actions.duplicates import duplicates as search
    from core.actions.duplicates import summary_text

    run = search(open_workspace(workspace), live_progress())
    print("\n".join(summary_text(run)))
    print(run.folder)
