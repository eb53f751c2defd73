"""Translate the operations that the Review page's browser sends into operations of the decision log.

An operation as the browser sends it::

    {token, act: "decide", verdict, label, cause, run, saw, items: [[kind, task, role, image, verdict, label], ...]}
    {token, act: "decide", verdict, label, cause, run, saw, set: "..."}    everything that passes a filter
                                                                           (encode_positions)
    {token, act: "undo" | "redo"}
    {token, act: "comment", text, items: [[kind, task, role, image]]}

``cause`` is that of the items that are removed; what an earlier page left behind has none, and means a label error.
Every other decision is about the label.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from core.decisions.causes import Cause, OptionalCause
from core.decisions.log import DecisionLog
from core.decisions.records import Act, Decision, Item, Operation, Result, Verdict
from core.review.review_queue import Queue
from core.runtime.errors import UserError

SUGGESTION_ACCEPTED = "the suggestion was accepted"
"""Reason of a decision to accept the suggested class."""
_MOST_ITEMS = 1 << 24
"""Longer selections are not decompressed: a damaged or hostile one could fill the memory."""


@dataclass(frozen=True)
class OperationAck:
    """The acknowledgement of one operation, which was applied, now or when it was sent before, or rejected.

    Attributes:
        act: decide, undo, redo or comment; empty if unknown.
        result: What an undo or redo did.
        error: Why the operation was rejected; empty if it was applied.
    """

    token: str
    act: str = ""
    result: Result | None = None
    error: str = ""


def encode_positions(positions: np.ndarray, n: int) -> str:
    """Return a set of positions below n as text of at most n / 6 bytes: what "all filtered" means to the browser."""
    bits = np.zeros(n, dtype=bool)
    bits[positions] = True
    return f"{n}.{base64.b64encode(zlib.compress(np.packbits(bits).tobytes())).decode()}"


def decode_positions(text: str) -> np.ndarray:
    """Return the positions that :func:`encode_positions` encoded; raise UserError if it is invalid."""
    number, _, encoded = text.partition(".")
    try:
        n = int(number)
        if not 0 <= n <= _MOST_ITEMS:
            raise ValueError(number)
        raw = zlib.decompressobj().decompress(base64.b64decode(encoded, validate=True), n // 8 + 1)
        return np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8), count=n))
    except (ValueError, binascii.Error, zlib.error) as error:
        raise UserError("A selection that the browser sent is damaged.", "Select the items again.") from error


def submit(
    log: DecisionLog, sent: Sequence[Any], reviewer: str, is_blind: bool, queue_of: Callable[[str], Queue]
) -> list[OperationAck]:
    """Write operations that the browser has no acknowledgement of; decisions in one transaction, in their order.

    Args:
        is_blind: The reviewer sees no decisions of others, so the operation resolves no conflicts.
        queue_of: Returns the queue with that run id; raises UserError if there is none.

    Returns:
        One acknowledgement per operation with a token, in the order sent.

    Raises:
        UserError: the log could not be written; no decision then counts as done, and the browser sends all again.
    """
    acks: dict[str, OperationAck] = {}
    operations: list[Operation] = []
    comments: list[tuple[Item, str, str]] = []
    for message in sent:
        if not isinstance(message, Mapping) or not isinstance(message.get("token"), str) or not message["token"]:
            continue
        token, act = message["token"], str(message.get("act", ""))
        try:
            if act == "comment":
                comments.append((_item(message["items"][0]), str(message["text"]), token))
                acks[token] = OperationAck(token, act)
            else:
                operations.append(_operation(message, reviewer, is_blind, queue_of))
        except (UserError, LookupError, TypeError, ValueError) as error:
            reason = str(error) if isinstance(error, UserError) else "It is malformed."
            acks[token] = OperationAck(token, act, error=reason)
    for operation, result in zip(operations, log.submit(operations), strict=True):
        reverses = operation.act != "decide"
        acks[operation.token] = OperationAck(operation.token, operation.act, result if reverses else None)
    for item, text, token in comments:
        log.comment(item, reviewer, text, token)
    return list(acks.values())


def _item(values: Sequence[Any]) -> Item:
    kind, task, role, image = values[:4]
    return Item(kind, str(task), str(role), str(image))


def _operation(
    message: Mapping[str, Any], reviewer: str, is_blind: bool, queue_of: Callable[[str], Queue]
) -> Operation:
    act, token = message["act"], message["token"]
    if act != "decide":
        return Operation(cast(Act, act), reviewer, token)
    verdict, label, source = message["verdict"], message.get("label"), str(message.get("run", ""))
    reason = SUGGESTION_ACCEPTED if verdict == "accept" else ""
    cause = cast(Cause, message.get("cause") or "label-error")
    saw = None if is_blind or not isinstance(message.get("saw"), int) else message["saw"]
    if "set" in message:
        queue, positions = queue_of(source), decode_positions(str(message["set"]))
        decisions = _same_decision(queue, positions, verdict, label, cause, reason, reviewer)
    else:
        decisions = tuple(
            Decision(_item(values), values[4], values[5], reason, reviewer, source, _cause_of(values[4], cause))
            for values in message["items"]
        )
    return Operation("decide", reviewer, token, decisions, saw)


def _cause_of(verdict: str, cause: Cause) -> OptionalCause:
    """Return the cause of one decision of an operation whose removals have the cause ``cause``."""
    return cause if verdict == "remove" else "" if verdict == "clear" else "label-error"


def _same_decision(
    queue: Queue,
    positions: np.ndarray,
    verdict: str,
    label: int | None,
    cause: Cause,
    reason: str,
    reviewer: str,
) -> tuple[Decision, ...]:
    """Return one decision per position; relabelling to the given class, or to no class, means keep."""
    if len(positions) and positions[-1] >= len(queue):
        raise UserError("The selection is of another queue.", "Select the items again.")

    def decision(position: int) -> Decision:
        item_verdict, to = cast(Verdict, verdict), label
        if verdict == "accept":
            item_verdict, to = "relabel", int(queue.suggested[position]) if queue.has_likelier_class[position] else -1
        if item_verdict == "relabel" and to in (-1, int(queue.given[position])):
            item_verdict, to = "keep", None
        of_item = _cause_of(item_verdict, cause)
        return Decision(queue.items[position], item_verdict, to, reason, reviewer, queue.run_id, of_item)

    return tuple(decision(int(position)) for position in positions)
