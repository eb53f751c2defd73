"""The commands of the label review: ``tasklens review ...``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

from typer import Argument, Option, Typer

from core.cli.common import announce_device, live_progress, open_workspace
from core.cli.decisions import (
    ItemOptions,
    JsonOption,
    decision_formatter,
    entry_fields,
    item_text,
    newest_queue_run,
    print_comment,
    print_json,
    print_reversal,
    print_snapshot,
)
from core.cli.options import (
    DEFAULT_WORKSPACE,
    REVIEWER,
    ReasonOption,
    ReviewerOption,
    WorkspaceOption,
    cause_option,
    metavar,
    with_settings,
)
from core.cli.streams import print_row
from core.decisions.causes import CAUSES
from core.decisions.records import ISSUE_VERDICTS, Verdict
from core.maml.settings import Compute
from core.review.settings import QueueSettings
from core.runtime.errors import UserError

review = Typer(
    help="Find label errors, decide on them, and export the decisions.", no_args_is_help=True, rich_markup_mode=None
)


@review.command()
@with_settings
def queue(*, workspace: WorkspaceOption = DEFAULT_WORKSPACE, settings: QueueSettings, compute: Compute) -> None:
    """Build the review queue: all labels, likely errors first.

    The score that ranks them is the one that finds injected label errors best. Prints its folder.
    """
    from core.actions.queue import queue as build

    run = build(open_workspace(workspace), settings, announce_device(compute), live_progress())
    print(run.folder)


@review.command()
def show(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    top: Annotated[int, Option(min=0, help="Number of items to print.")] = 20,
    cause: Annotated[
        list[str] | None,
        Option(help="Print only items whose decision has this cause. Repeatable.", metavar=metavar(*CAUSES)),
    ] = None,
) -> None:
    """Describe the newest queue and print its first items.

    Says how it ranks, how many items are decided, and how many errors are predicted to remain.
    """
    from core.actions.queue import filtered_items, queue_summary_text, remaining_errors_text
    from core.review.filters import Filters

    opened = open_workspace(workspace)
    if unknown := [one for one in cause or () if one not in CAUSES]:
        raise UserError(f"“{unknown[0]}” is not a cause.", f"Use one of {', '.join(CAUSES)}.")
    run, describe = newest_queue_run(opened), decision_formatter(opened)
    print("\n".join([*queue_summary_text(run), *remaining_errors_text(opened, run)]))
    for item, entry in filtered_items(opened, run, Filters(cause=tuple(cause or ())), top):
        where = "/".join(filter(None, (item["task_id"], item["role"], item["image_id"])))
        probability = item["probability"]
        chance = "" if probability != probability else f"label error {probability:.0%}"
        decided = f"decided: {describe(entry)}" if entry else "undecided"
        print_row(item["rank"] + 1, where, f"given {item['class']}", f"suggested {item['suggested']}", chance, decided)


@review.command()
@with_settings
def decide(
    *,
    verdict: Annotated[str, Option("--as", help="The decision.", metavar=metavar(*get_args(Verdict)))],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    named: ItemOptions,
    first: Annotated[int, Option(min=0, help="Decide on this many first items of the newest queue instead.")] = 0,
    label: Annotated[
        str | None, Option(help="New class for --as relabel. Default with --first: the suggestion of the queue.")
    ] = None,
    cause: Annotated[str, cause_option("label-error for images, other for tasks")] = "",
    reason: ReasonOption = "",
    reviewer: ReviewerOption = REVIEWER,
    least_probability: Annotated[
        float, Option(min=0, max=1, help="For --task with --as relabel: least probability of a suggestion to accept.")
    ] = 0.5,
    seen: Annotated[
        bool, Option("--seen", help="Resolve conflicts: you have seen the decisions of the other reviewers.")
    ] = False,
) -> None:
    """Decide on images, tasks, or the first items of the queue.

    With --task and --role, decides on an image in one task only. Prints the decisions. Relabelling a whole task accepts
    what the queue suggests, except for rows that are decided already.
    """
    from core.actions.decide import suggestions_of_task
    from core.decisions.checks import check_known, class_number
    from core.decisions.log import Decision, Operation
    from core.review.suggestions import first_items, undecided

    opened, items, source = open_workspace(workspace), named.items(), ""
    if bool(first) == bool(items):
        raise UserError("There are no items to decide on.", "Give either --item or --task, or --first.")
    is_suggested = verdict == "relabel" and label is None
    if is_suggested and named.task and not named.item:
        suggestions = suggestions_of_task(opened, newest_queue_run(opened), named.task, least_probability)
        decisions = undecided(suggestions, opened.decisions.current())
        if not decisions:
            print(f"nothing to relabel; {len(suggestions)} decided already")
            return
    else:
        chosen = [(one, label) for one in items]
        if first:
            run = newest_queue_run(opened)
            source = run.id
            suggested = first_items(run.table("items.parquet"), first)
            chosen = [(one, name if is_suggested else label) for one, name in suggested]
        project = opened.project()
        numbers = {name: None if name is None else class_number(project.images, name) for _, name in chosen}
        decisions = [Decision(one, verdict, numbers[name], reason, reviewer, source, cause) for one, name in chosen]  # type: ignore[arg-type]
        check_known(project.tasks.train, [one for one, _ in chosen])
    log = opened.decisions
    log.submit([Operation("decide", reviewer, "", tuple(decisions), log.version() if seen else None)])
    describe = decision_formatter(opened)
    for decision in decisions:
        print_row(item_text(decision.item), describe(decision))


@review.command()
def undo(workspace: WorkspaceOption = DEFAULT_WORKSPACE, reviewer: ReviewerOption = REVIEWER) -> None:
    """Undo your last decisions; repeat to go further back."""
    opened = open_workspace(workspace)
    print_reversal(opened, opened.decisions.undo(reviewer), "undone", "Nothing to undo.")


@review.command()
def redo(workspace: WorkspaceOption = DEFAULT_WORKSPACE, reviewer: ReviewerOption = REVIEWER) -> None:
    """Redo what you undid last.

    Does nothing if you have decided something since.
    """
    opened = open_workspace(workspace)
    print_reversal(opened, opened.decisions.redo(reviewer), "redone", "Nothing to redo.")


@review.command()
def log(workspace: WorkspaceOption = DEFAULT_WORKSPACE, as_json: JsonOption = False) -> None:
    """Print the log of decisions, oldest first."""
    opened = open_workspace(workspace)
    describe, history = decision_formatter(opened), opened.decisions.history()
    if as_json:
        print_json([entry_fields(entry, describe) for entry in history])
        return
    print_row("number", "time", "group", "undoes", "by", "reviewer", "item", "decision", "reason", "source")
    for entry in history:
        undoes = "" if entry.undoes is None else entry.undoes
        numbers = entry.seq, entry.at, entry.group, undoes
        print_row(
            *numbers, entry.by, entry.reviewer, item_text(entry.item), describe(entry), entry.reason, entry.source
        )


@review.command()
def conflicts(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Print the conflicts between reviewers.

    These are items that they decided differently without seeing each other's decisions.
    """
    opened = open_workspace(workspace)
    describe = decision_formatter(opened)
    for item, entries in opened.decisions.conflicts().items():
        print_row(item_text(item), ", ".join(f"{entry.reviewer}: {describe(entry)}" for entry in entries))


@review.command()
@with_settings
def comment(
    *,
    text: Annotated[str, Argument(help="The comment.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    named: ItemOptions,
    reviewer: ReviewerOption = REVIEWER,
) -> None:
    """Comment on an image, an image in one task, or a task."""
    from core.decisions.checks import check_known

    opened, items = open_workspace(workspace), named.items()
    if len(items) != 1:
        raise UserError("A comment needs exactly one item.", "Give one --item, or --task.")
    check_known(opened.project().tasks.train, items)
    print_comment(opened.decisions.comment(items[0], reviewer, text))


@review.command()
@with_settings
def comments(
    *, workspace: WorkspaceOption = DEFAULT_WORKSPACE, named: ItemOptions, as_json: JsonOption = False
) -> None:
    """Print the comments on an item, or all comments."""
    log, items = open_workspace(workspace).decisions, named.items()
    selected = [comment for one in items for comment in log.comments(one)] if items else log.comments()
    if as_json:
        print_json([{"at": one.at, "reviewer": one.reviewer, **asdict(one.item), "text": one.text} for one in selected])
        return
    for comment in selected:
        print_comment(comment)


@review.command()
def snapshot(
    name: Annotated[str, Argument(help="A new name.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    note: Annotated[str, Option(help="Note, saved with the snapshot.")] = "",
    reviewer: ReviewerOption = REVIEWER,
) -> None:
    """Save the current state of the decisions under a name."""
    print_snapshot(open_workspace(workspace).decisions.snapshot(name, reviewer, note))


@review.command()
def snapshots(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """List the snapshots, oldest first."""
    for one in open_workspace(workspace).decisions.snapshots():
        print_snapshot(one)


@review.command()
def diff(
    before: Annotated[str, Argument(help="Name of a snapshot, or number of a log entry.")],
    after: Annotated[str, Argument(help="Another one. Default: now.")] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Print the differences between the decisions of two states."""
    opened = open_workspace(workspace)
    log, describe = opened.decisions, decision_formatter(opened)
    names = {one.name for one in log.snapshots()}
    states = [int(state) if state.isdecimal() and state not in names else state for state in (before, after)]
    changed = log.difference(states[0], states[1] if after else None)
    for item, (old, new) in changed.items():
        print_row(item_text(item), describe(old), describe(new))


@review.command()
def restore(
    name: Annotated[str, Argument(help="Name of a snapshot.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    reviewer: ReviewerOption = REVIEWER,
) -> None:
    """Restore the decisions of a snapshot; can be undone."""
    log = open_workspace(workspace).decisions
    group = log.restore(name, reviewer).group
    print(f"decisions changed: {sum(entry.group == group for entry in log.history())}")


@review.command()
def agreement(
    one: Annotated[str, Argument(help="A reviewer.")],
    two: Annotated[str, Argument(help="Another reviewer.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Print the agreement of two reviewers, and where they differ."""
    from core.decisions.agreement import agreement as agreement_of

    opened = open_workspace(workspace)
    measured, describe = agreement_of(opened.decisions, one, two), decision_formatter(opened)
    print(f"items decided by both for the same cause: {measured.items}, in agreement: {measured.equal:.1%}")
    if measured.kappa == measured.kappa:
        print(f"Cohen's kappa {measured.kappa:.2f} [{measured.low:.2f}, {measured.high:.2f}]")
    else:
        print("Cohen's kappa is undefined, as both made the same decision on all items")
    for first, second in measured.differing:
        print_row(item_text(first.item), f"{one}: {describe(first)}", f"{two}: {describe(second)}")


@review.command("import")
def import_(
    file: Annotated[Path, Argument(help="Table of decisions or of cleanlab, as csv, parquet or JSON.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_: Annotated[
        str,
        Option(
            "--as",
            help="Decision for each issue of cleanlab; unsure marks it for review.",
            metavar=metavar(*ISSUE_VERDICTS),
        ),
    ] = "unsure",
    reviewer: Annotated[
        str, Option(help="Reviewer of decisions that name none. Default: import, or cleanlab for its tables.")
    ] = "",
    by_position: Annotated[
        bool,
        Option(
            "--by-position",
            help="For a table of cleanlab without image names: match its rows to images by position, if the given "
            "labels prove the order.",
        ),
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Report what would be imported, and import nothing.")] = False,
) -> None:
    """Import decisions from a file, all or none.

    Reports how many are new and how many exist already.
    """
    from core.actions.import_decisions import import_decisions, plan_import

    act = plan_import if dry_run else import_decisions
    plan = act(open_workspace(workspace), file, reviewer=reviewer, as_=as_, by_position=by_position)
    print("\n".join(plan.sentences))


@review.command()
def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[Path | None, Option(help="Folder to write. Default: exports/decisions of the workspace.")] = None,
    formats: Annotated[
        str, Option(help="Formats, separated by commas.", metavar=metavar("csv", "parquet", "json", is_tuple=True))
    ] = "csv,parquet,json",
) -> None:
    """Export the decisions with their provenance.

    Writes decisions, conflicts, corrected labels and comments; prints the folder.
    """
    from core.actions.export_decisions import export_decisions

    opened = open_workspace(workspace)
    folder = out or opened.folder / "exports" / "decisions"
    print(export_decisions(opened, folder, formats=tuple(formats.split(","))))


@review.command()
def report(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[
        Path | None, Option(help="File to write; - prints it. Default: exports/review.html of the workspace.")
    ] = None,
) -> None:
    """Write a report of the review as one HTML file.

    It has images, curves, figures and the method. Prints its path.
    """
    from core.actions.report import report_html, write_report

    opened = open_workspace(workspace)
    if out == Path("-"):
        print(report_html(opened))
        return
    print(write_report(opened, out or opened.folder / "exports" / "review.html"))


@review.command()
def duplicates(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Find duplicate images, and leaks into the held-out tasks.

    Prints the findings and the folder of the run.
    """
    from core.actions.duplicates import duplicates as search
    from core.actions.duplicates import summary_text

    run = search(open_workspace(workspace), live_progress())
    print("\n".join(summary_text(run)))
    print(run.folder)
