"""What the browser's log of decisions means to the decision log.

An operation as the browser sends it::

    {token, act: "decide", verdict, label, run, saw, items: [[kind, task, role, image, verdict, label], ...]}
    {token, act: "decide", verdict, label, run, saw, set: "..."}     all that passed a filter (see pack)
    {token, act: "undo" | "redo"}
    {token, act: "comment", text, items: [[kind, task, role, image]]}
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from core.decisions.log import Act, Decision, DecisionLog, Item, Operation, Result, Verdict
from core.runtime.errors import UserError
from core.ui.review.queue import Queue
from core.ui.shell.text import count

ACCEPTED = "the suggestion was accepted"
_MOST_ITEMS = 1 << 24

OpenQueue = Callable[[str], Queue]
"""Gives the queue with that run id; raises UserError if there is none."""


@dataclass(frozen=True)
class OperationAck:
    """What became of one operation: done (or done before), or ``lost`` because nothing can be made of it."""

    token: str
    text: str = ""
    lost: bool = False


def pack(positions: np.ndarray, n: int) -> str:
    """A set of positions below n as text, a fifth of a byte each or less: what "all filtered" means to the browser."""
    bits = np.zeros(n, dtype=bool)
    bits[positions] = True
    return f"{n}.{base64.b64encode(zlib.compress(np.packbits(bits).tobytes())).decode()}"


def unpack(text: str) -> np.ndarray:
    """Positions out of :func:`pack`.

    Raises:
        UserError: the text is something else.
    """
    number, _, packed = text.partition(".")
    try:
        n = int(number)
        if not 0 <= n <= _MOST_ITEMS:
            raise ValueError(number)
        unzip = zlib.decompressobj()
        raw = unzip.decompress(base64.b64decode(packed, validate=True), n // 8 + 1)
        return np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8), count=n))
    except (ValueError, binascii.Error, zlib.error) as error:
        raise UserError("A selection came from the browser damaged.", "Select again.") from error


def submit(
    log: DecisionLog, sent: Sequence[Any], reviewer: str, blind: bool, queue_of: OpenQueue
) -> list[OperationAck]:
    """Write what the browser has not got acknowledged; decisions in one transaction, in their order.

    Returns what became of each, in the order sent.

    Raises:
        UserError: the log could not be written; nothing of it counts as done, and the browser keeps it all.
    """
    told: dict[str, OperationAck] = {}
    operations: list[Operation] = []
    remarks: list[tuple[Item, str, str]] = []
    for one in sent:
        if not isinstance(one, Mapping) or not isinstance(one.get("token"), str) or not one["token"]:
            continue
        token = one["token"]
        try:
            if one.get("act") == "comment":
                remarks.append((_item(one["items"][0]), str(one["text"]), token))
                told[token] = OperationAck(token)
            else:
                operations.append(_operation(one, reviewer, blind, queue_of))
        except (UserError, LookupError, TypeError, ValueError) as error:
            why = str(error) if isinstance(error, UserError) else "It makes no sense here."
            told[token] = OperationAck(
                token, f"One decision could not be understood and was left out. {why}", lost=True
            )
    for operation, result in zip(operations, log.submit(operations), strict=True):
        told[operation.token] = OperationAck(operation.token, _words(operation, result))
    for item, text, token in remarks:
        log.comment(item, reviewer, text, token)
    return list(told.values())


def _item(values: Sequence[Any]) -> Item:
    kind, task, role, image = values[:4]
    return Item(kind, str(task), str(role), str(image))


def _operation(one: Mapping[str, Any], reviewer: str, blind: bool, queue_of: OpenQueue) -> Operation:
    act, token = one["act"], one["token"]
    if act != "decide":
        return Operation(cast(Act, act), reviewer, token)
    verdict, label, source = one["verdict"], one.get("label"), str(one.get("run", ""))
    reason = ACCEPTED if verdict == "accept" else ""
    saw = one.get("saw")
    if "set" in one:
        queue = queue_of(source)
        decisions = _all_of(queue, unpack(str(one["set"])), verdict, label, reason, reviewer)
    else:
        decisions = tuple(
            Decision(_item(values), values[4], values[5], reason, reviewer, source) for values in one["items"]
        )
    return Operation("decide", reviewer, token, decisions, saw if isinstance(saw, int) and not blind else None)


def _all_of(
    queue: Queue, positions: np.ndarray, verdict: str, label: int | None, reason: str, reviewer: str
) -> tuple[Decision, ...]:
    """The same decision on many; a class that an item has already, or none that is likelier, means keep."""
    if len(positions) and positions[-1] >= len(queue):
        raise UserError("A selection is of another queue.", "Select again.")

    def one(at: int) -> Decision:
        what, to = cast(Verdict, verdict), label
        if verdict == "accept":
            what, to = "relabel", int(queue.suggested[at]) if queue.believed[at] else -1
        if what == "relabel" and to in (-1, int(queue.given[at])):
            what, to = "keep", None
        return Decision(queue.items[at], what, to, reason, reviewer, queue.run.id)

    return tuple(one(int(at)) for at in positions)


def _words(operation: Operation, result: Result) -> str:
    """What the reviewer hears of an undo or redo; a decision needs no words."""
    if operation.act == "decide":
        return ""
    what = "Undone" if operation.act == "undo" else "Done again"
    if result.group is None:
        return f"There is nothing to {operation.act}."
    kept = f"; {count(len(result.kept), 'newer decision')} of others stay" if result.kept else ""
    return f"{what}: {count(len(result.taken), 'decision')}{kept}."
