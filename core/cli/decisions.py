"""What the commands of ``review`` that read and write decisions share: naming items, and printing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from core.decisions.log import Comment, Decision, DecisionLog, Entry, Item, Result, Snapshot
from core.runtime.errors import UserError

ItemOption = Annotated[
    list[str] | None,
    typer.Option("--item", help="Id of an image, wherever it occurs; with --task and --role only there. Repeatable."),
]
TaskOption = Annotated[
    str, typer.Option("--task", help="Id of a task: of the items, or without --item the whole task itself.")
]
RoleOption = Annotated[str, typer.Option("--role", help="support or query, with --task and --item.")]
ReviewerOption = Annotated[str, typer.Option(help="Who you are; kept in the log.")]

JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, with every field.")]

REVIEWER = "command line"


def named_items(item: list[str] | None, task: str, role: str) -> list[Item]:
    """The items that the three options name."""
    if not item:
        if role:
            raise UserError("--role alone names nothing.", "Give --item and --task too.")
        return [Item("task", task)] if task else []
    if bool(task) != bool(role):
        raise UserError("An image in a task needs both --task and --role.", "Give both, or neither.")
    return [Item("instance", task, role, i) if task else Item("image", image_id=i) for i in item]


def moment(log: DecisionLog, named: str) -> int | str:
    """What stands for a state: the name of a snapshot, or else the number of an entry."""
    known = any(snapshot.name == named for snapshot in log.snapshots())
    return int(named) if named.isdecimal() and not known else named


def class_names(opened: Any) -> Callable[[Decision | None], str]:
    """A function that says a verdict in words; the images are read only if a class has to be named."""
    names: list[str] = []

    def words(decision: Decision | None) -> str:
        if decision is None:
            return "nothing"
        if decision.label is None:
            return decision.verdict
        if not names:
            names.extend(map(str, opened.project().images.class_names))
        known = 0 <= decision.label < len(names)
        return f"relabel to {cell(names[decision.label]) if known else f'class number {decision.label}'}"

    return words


def named(item: Item) -> str:
    """An item in one word with its kind."""
    return f"{item.kind} {cell('/'.join(filter(None, (item.task_id, item.role, item.image_id))))}"


def cell(text: str) -> str:
    """Text that stays in its place in a table, and in a terminal, whatever it holds."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def row(*cells: str | int) -> None:
    print(*cells, sep="\t")


def fields(entry: Entry, words: Callable[[Decision | None], str]) -> dict[str, Any]:
    """An entry of the log for JSON."""
    return {
        "seq": entry.seq,
        "at": entry.at,
        "group": entry.group,
        "undoes": entry.undoes,
        "by": entry.by,
        "reviewer": entry.reviewer,
        **item_fields(entry.item),
        "verdict": entry.verdict,
        "class": words(entry).removeprefix("relabel to ") if entry.verdict == "relabel" else None,
        "reason": entry.reason,
        "source": entry.source,
        "saw": entry.saw,
    }


def comment_fields(comment: Comment) -> dict[str, Any]:
    return {"at": comment.at, "reviewer": comment.reviewer, **item_fields(comment.item), "text": comment.text}


def item_fields(item: Item) -> dict[str, str]:
    return {"kind": item.kind, "task_id": item.task_id, "role": item.role, "image_id": item.image_id}


def print_json(rows: Iterable[dict[str, Any]]) -> None:
    print(json.dumps(list(rows), indent=1))  # ASCII: file names that are no text survive any terminal


def print_reversal(opened: Any, result: Result, done: str, nothing: str) -> None:
    words = class_names(opened)
    if result.group is None:
        print(nothing)
    for entry in result.taken:
        row(done, named(entry.item), words(entry))
    for entry in result.kept:
        row("kept", named(entry.item), f"{words(entry)}, which {cell(entry.reviewer)} decided since")


def print_comment(comment: Comment) -> None:
    row(comment.at, cell(comment.reviewer), named(comment.item), cell(comment.text))


def print_snapshot(snapshot: Snapshot) -> None:
    row(cell(snapshot.name), snapshot.at, cell(snapshot.reviewer), f"after line {snapshot.seq}", cell(snapshot.note))


def the_queue(opened: Any) -> Any:
    """The newest queue run of a workspace."""
    from core.actions.queue import newest_queue

    queue = newest_queue(opened)
    if queue is None:
        raise UserError("There is no review queue in this workspace.", "Make one: python -m core review queue.")
    return queue
