"""Translate the operations that the Review page's browser sends into operations of the decision log.

An operation as the browser sends it::

    {token, act: "decide", verdict, label, cause, run, saw, items: [[kind, task, role, image, verdict, label], ...]}
    {token, act: "decide", verdict, label, cause, run, saw, set: "..."}    everything that passes a filter
                                                                           (encode_positions)
    {token, act: "undo" | "redo"}
    {token, act: "comment", text, items: [[kind, task, role, image]]}

``cause`` is that of the items that are removed; what an earlier page left behind has none, and means a label error.
Every other decision is about the label.

An operation that can never be applied, such as one on an unknown item, is rejected by itself: it is acknowledged with
the reason, so that the browser sends it no more, and those after it are applied. An error of the log or of a disk
rejects none: nothing is acknowledged, and the browser sends all of them again.
"""

from __future__ import annotations

import base64
import binascii
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from core.decisions.causes import Cause, OptionalCause
from core.decisions.checks import known_keys
from core.decisions.log import DecisionLog, LogTransaction
from core.decisions.records import Act, Decision, Item, Operation, Result, Verdict, check_comment, check_reviewer
from core.review.review_queue import Queue
from core.runtime.errors import TransientError, UserError
from core.runtime.stored import Text, fault_of
from core.tasks.tasklist import TaskList

SUGGESTION_ACCEPTED = "the suggestion was accepted"
"""Reason of a decision to accept the suggested class."""
T = TypeVar("T")
_MOST_ITEMS = 1 << 24
"""Longer selections are not decompressed: a damaged or hostile one could fill the memory."""


@dataclass(frozen=True)
class OperationAck:
    """The acknowledgement of one operation, which was applied, now or when it was sent before, or rejected.

    Attributes:
        act: decide, undo, redo or comment; empty if unknown.
        result: What an undo or redo did.
        error: Why the operation was rejected; empty if it was applied.
        item: Of a rejected operation, what it was about, such as ``image 12 and 3 more``; empty if it names none.
    """

    token: str
    act: str = ""
    result: Result | None = None
    error: str = ""
    item: str = ""


class _ItemRow(NamedTuple):
    kind: Text
    task: Text
    role: Text
    image: Text


_Integer = Annotated[int, Strict()]
_IGNORED = ConfigDict(extra="ignore")  # newer pages may send more


@checked_dataclass(frozen=True, config=_IGNORED)
class _Decide:
    """Decisions on items, or on a set of positions of the queue of ``run``."""

    token: Text
    act: Literal["decide"]
    verdict: Text = ""
    label: _Integer | None = None
    cause: Text | None = None
    run: Text = ""
    saw: Any = None
    items: list[tuple[Text, Text, Text, Text, Text, _Integer | None]] | None = None
    set: Text | None = None


@checked_dataclass(frozen=True, config=_IGNORED)
class _Reverse:
    """An undo or redo."""

    token: Text
    act: Literal["undo", "redo"]


@checked_dataclass(frozen=True, config=_IGNORED)
class _Comment:
    """A comment on the first of ``items``."""

    token: Text
    act: Literal["comment"]
    text: Text
    items: list[_ItemRow]


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
    log: DecisionLog,
    sent: Sequence[Any],
    reviewer: str,
    is_blind: bool,
    queue: Queue,
    tasks: TaskList,
    queue_of: Callable[[str], Queue],
) -> list[OperationAck]:
    """Write operations that the browser has no acknowledgement of, in one transaction and in their order.

    Args:
        is_blind: The reviewer sees no decisions of others, so the operation resolves no conflicts.
        queue: The queue on the page.
        tasks: The training tasks; only their items can be decided on.
        queue_of: Returns the queue with that run id; raises UserError if there is none.

    Returns:
        One acknowledgement per operation with a token, in the order sent.

    Raises:
        UserError: the log could not be written, or the reviewer has no proper name. Nothing is acknowledged.
    """
    messages = [dict(message) for message in sent if isinstance(message, Mapping) and _token(message)]
    if not messages:
        return []
    check_reviewer(reviewer)
    translator = _Translator(reviewer, is_blind, queue, tasks, queue_of)
    prepared = [(message, _attempt(partial(translator.translate, message))) for message in messages]
    acks: dict[str, OperationAck] = {}
    with log.transaction() as transaction:
        for message, (write, reason) in prepared:
            token, act, result = _token(message), str(message.get("act", ""))[:20], None
            if write is not None:
                result, reason = _attempt(partial(_written, transaction, write))
            acks[token] = OperationAck(token, act, result, reason, _items_text(message) if reason else "")
    return list(acks.values())


_DECIDE, _REVERSE, _COMMENT = TypeAdapter(_Decide), TypeAdapter(_Reverse), TypeAdapter(_Comment)
_Write = Callable[[LogTransaction], Result | None]


def _token(message: Mapping[str, Any]) -> str:
    token = message.get("token")
    return token if isinstance(token, str) else ""


def _attempt(act: Callable[[], T]) -> tuple[T | None, str]:
    """Return what a function returns, and why the operation is rejected; an error that may pass is raised."""
    try:
        return act(), ""
    except (TransientError, UnicodeDecodeError):  # the latter of sqlite3, about a damaged file
        raise
    except UserError as error:
        return None, str(error)
    except ValidationError as error:
        return None, f"It is malformed: {fault_of(error)}."
    # Of SQLite: a value that it cannot hold; any other error of it is one of the file.
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError, sqlite3.DataError) as error:
        return None, f"It is malformed ({type(error).__name__})."


def _written(transaction: LogTransaction, write: _Write) -> Result | None:
    with transaction.separately():
        return write(transaction)


def _items_text(message: Mapping[str, Any]) -> str:
    """Return what an operation is about, such as ``image 12`` or ``t1 / query / 12 and 3 more``."""
    match message.get("items"):
        case [[str() as kind, *ids], *others]:
            named = " / ".join(str(value) for value in ids[:3] if value)[:80]
            more = f" and {len(others):,} more" if others else ""
            return f"{'image ' if kind == 'image' else ''}{named}{more}"
    return "a selection of the whole list" if "set" in message else ""


@dataclass(frozen=True)
class _Translator:
    """Translates what one reviewer's browser sends; each operation is checked by itself."""

    reviewer: str
    is_blind: bool
    queue: Queue
    tasks: TaskList
    queue_of: Callable[[str], Queue]

    def translate(self, message: Mapping[str, Any]) -> _Write:
        """Return what writes an operation; raise an error that says why it can never be written."""
        match message.get("act"):
            case "decide":
                operation = self._decide(_DECIDE.validate_python(message))
            case "undo" | "redo":
                reverse = _REVERSE.validate_python(message)
                operation = Operation(cast(Act, reverse.act), self.reviewer, reverse.token)
            case "comment":
                comment = _COMMENT.validate_python(message)
                item, text = self._item(*comment.items[0]), comment.text
                check_comment(text)
                return lambda log: _nothing(log.comment(item, self.reviewer, text, comment.token))
            case act:
                raise UserError(f"“{str(act)[:20]}” is not an operation of this version.", "Reload the page.")
        if operation.act == "decide":
            return lambda log: _nothing(log.apply(operation))
        return lambda log: log.apply(operation)

    def _decide(self, sent: _Decide) -> Operation:
        reason = SUGGESTION_ACCEPTED if sent.verdict == "accept" else ""
        cause = cast(Cause, sent.cause or "label-error")
        saw = None if self.is_blind or type(sent.saw) is not int else min(max(sent.saw, 0), 2**62)
        if sent.set is not None:
            queue, positions = self.queue_of(sent.run), decode_positions(sent.set)
            self._check_label(sent.label, lowest=-1)  # to no class: keep
            decisions = _same_decision(queue, positions, sent.verdict, sent.label, cause, reason, self.reviewer)
        else:
            made = []
            for *ids, verdict, label in sent.items or ():
                self._check_label(label)
                of_item = _cause_of(verdict, cause)
                made.append(
                    Decision(self._item(*ids), cast(Verdict, verdict), label, reason, self.reviewer, sent.run, of_item)
                )
            decisions = tuple(made)
        return Operation("decide", self.reviewer, sent.token, decisions, saw)

    def _item(self, kind: Any, task: str, role: str, image: str) -> Item:
        item = Item(kind, task, role, image)
        if item not in self.queue.positions.of_item and (kind, task, role, image) not in self._known:
            raise UserError("It is not in the training tasks.", "Nothing can be decided on it.")
        return item

    @cached_property
    def _known(self) -> set[tuple[str, ...]]:
        return known_keys(self.tasks)  # rarely needed: the queue on the page has nearly all of them

    def _check_label(self, label: int | None, lowest: int = 0) -> None:
        if label is not None and not lowest <= label < len(self.queue.names):
            raise UserError(f"There is no class number {label}.", "Choose an existing class.")


def _nothing(_: object) -> None:
    """Return no result, as decisions and comments need none."""


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
