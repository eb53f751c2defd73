"""Options and printing that the commands of ``review`` share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any

from typer import Option

from core.cli.streams import print_row
from core.decisions.log import Comment, Decision, Entry, Item, Result, Snapshot
from core.decisions.records import decision_text
from core.runtime.errors import UserError
from core.runtime.program import command_line
from core.runtime.settings import Setting

JsonOption = Annotated[bool, Option("--json", help="Print as JSON, with all fields.")]


@dataclass(frozen=True)
class ItemOptions:
    """The options that name items of decisions and comments."""

    item: Annotated[
        tuple[str, ...],
        Setting("Id of an image; with --task and --role, only where it occurs there. Repeatable.", repeat=True),
    ] = ()
    task: Annotated[str, Setting("Id of the task that contains the items; without --item, the task itself.")] = ""
    role: Annotated[str, Setting("Role of the items in --task.", choices=("support", "query"))] = ""

    def items(self) -> list[Item]:
        """Return the items; raise UserError if some of the options are missing."""
        if not self.item:
            if self.role:
                raise UserError("--role names an item only with --item and --task.", "Give all three.")
            return [Item("task", self.task)] if self.task else []
        if bool(self.task) != bool(self.role):
            raise UserError("An image in a task needs both --task and --role.", "Give both, or neither.")
        return [
            Item("instance", self.task, self.role, i) if self.task else Item("image", image_id=i) for i in self.item
        ]


def decision_formatter(opened: Any) -> Callable[[Decision | None], str]:
    """Return a function that describes a decision; the images are read only if a class has to be named."""
    names = cache(lambda: opened.project().images.class_names)

    def describe(decision: Decision | None) -> str:
        is_relabel = decision is not None and decision.label is not None
        return decision_text(decision, names() if is_relabel else (), absent="nothing")

    return describe


def item_text(item: Item) -> str:
    """Write an item as its kind and its ids."""
    return f"{item.kind} {'/'.join(filter(None, (item.task_id, item.role, item.image_id)))}"


def entry_fields(entry: Entry, describe: Callable[[Decision | None], str]) -> dict[str, Any]:
    """Return an entry of the log for JSON."""
    fields = asdict(entry)
    written = {name: fields[name] for name in ("seq", "at", "group", "undoes", "by", "reviewer")}
    class_name = describe(entry).removeprefix("relabel to ") if entry.verdict == "relabel" else None
    decided = {"verdict": entry.verdict, "class": class_name}
    return written | fields["item"] | decided | {name: fields[name] for name in ("cause", "reason", "source", "saw")}


def print_json(rows: list[dict[str, Any]]) -> None:
    """Print rows as a JSON list, in ASCII: file names that are not valid text survive any terminal."""
    print(json.dumps(rows, indent=1))


def print_reversal(opened: Any, result: Result, done: str, nothing: str) -> None:
    """Print the decisions that were undone or redone, and those that another reviewer has changed since."""
    describe = decision_formatter(opened)
    if result.group is None:
        print(nothing)
    for entry in result.reversed_entries:
        print_row(done, item_text(entry.item), describe(entry))
    for entry in result.newer_entries:
        print_row("unchanged", item_text(entry.item), f"{describe(entry)}, decided by {entry.reviewer} since")


def print_comment(comment: Comment) -> None:
    """Print a comment as a line."""
    print_row(comment.at, comment.reviewer, item_text(comment.item), comment.text)


def print_snapshot(snapshot: Snapshot) -> None:
    """Print a snapshot as a line."""
    print_row(snapshot.name, snapshot.at, snapshot.reviewer, f"after entry {snapshot.seq}", snapshot.note)


def newest_queue_run(opened: Any) -> Any:
    """Return the newest queue run of a workspace; raise UserError if there is none."""
    from core.actions.queue import newest_queue

    if (queue := newest_queue(opened)) is None:
        raise UserError("This workspace has no review queue.", f"Run {command_line(['review', 'queue'])} first.")
    return queue
