"""The records of the decision log (:mod:`core.decisions.log`): items, decisions, operations, comments, snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from core.decisions.causes import CAUSE_WORDS, CAUSES, OptionalCause, implied_cause
from core.decisions.texts import COMMENT_LENGTH, REVIEWER_LENGTH, text_fault
from core.runtime.errors import UserError

Kind = Literal["task", "instance", "image"]
Verdict = Literal["keep", "remove", "relabel", "unsure", "clear"]
Act = Literal["decide", "undo", "redo"]
ISSUE_VERDICTS = ("unsure", "remove", "relabel")
"""Verdicts that an issue of cleanlab can become."""

_VERDICTS = get_args(Verdict)
# Of an item: kind, whether it has a task_id, role, whether it has an image_id.
_SHAPES = {
    ("task", True, "", False),
    ("instance", True, "support", True),
    ("instance", True, "query", True),
    ("image", False, "", True),
}


@dataclass(frozen=True)
class Item:
    """The subject of a decision: a task, one image in one role of a task (an instance), or an image in all tasks.

    Raises:
        UserError: a field that the kind needs is empty, or one that it does not have is set.
    """

    kind: Kind
    task_id: str = ""
    role: str = ""
    image_id: str = ""

    def __post_init__(self) -> None:
        if (self.kind, bool(self.task_id), self.role, bool(self.image_id)) not in _SHAPES:
            raise UserError(
                f"This is not an item: {self}.",
                "A task has a task_id; an instance a task_id, the role support or query, and an image_id; "
                "an image only an image_id.",
            )


@dataclass(frozen=True)
class Decision:
    """A reviewer's decision on an item.

    Attributes:
        reason: Any text on why.
        source: The ranking or run that listed the item; may be empty.
        cause: Why the item is removed; of keep, what was ruled out; of unsure, what is suspected. Where none is given,
            it is :func:`core.decisions.causes.implied_cause`. A relabel is always a label error; "clear" has no cause.

    Raises:
        UserError: the verdict or the cause is unknown, or a relabel has no label, or another verdict has one, or the
            cause does not fit the verdict.
    """

    item: Item
    verdict: Verdict
    label: int | None = None
    reason: str = ""
    reviewer: str = ""
    source: str = ""
    cause: OptionalCause = ""

    def __post_init__(self) -> None:
        if self.verdict not in _VERDICTS:
            raise UserError(f"“{self.verdict}” is not a verdict.", f"Use one of {', '.join(_VERDICTS)}.")
        if (self.verdict == "relabel") != (self.label is not None):
            raise UserError("“relabel” needs a new label, and no other verdict has one.", "Choose the new class.")
        if self.verdict == "relabel" and self.item.kind == "task":
            raise UserError("A task has no label.", "Relabel an image.")
        if self.label is not None and not -(2**63) <= self.label < 2**63:
            raise UserError(f"{self.label} is not a class number.", "Choose an existing class.")
        if self.cause and self.cause not in CAUSES:
            raise UserError(f"“{self.cause}” is not a cause.", f"Use one of {', '.join(CAUSES)}.")
        fixed = {"relabel": "label-error", "clear": ""}.get(self.verdict)
        if fixed is not None and self.cause not in ("", fixed):
            raise UserError(f"A decision to {self.verdict} cannot have the cause {self.cause}.", "Leave out the cause.")
        if not self.cause:
            cause = implied_cause(self.item.kind, self.reason, self.source) if fixed is None else fixed
            object.__setattr__(self, "cause", cause)  # the class is frozen

    @property
    def outcome(self) -> tuple[Verdict, int | None]:
        """The verdict and the label, so what becomes of the item: two decisions agree if these are equal."""
        return self.verdict, self.label

    @property
    def is_on_label(self) -> bool:
        """Whether it says that the label of an item is wrong (remove, relabel) or right (keep)."""
        return self.is_final and self.cause == "label-error"

    @property
    def is_final(self) -> bool:
        """Whether it is a final decision: keep, remove and relabel are, unsure and clear are not."""
        return self.verdict not in ("unsure", "clear")


def decision_text(decision: Decision | None, names: Sequence[str], *, absent: str = "undecided") -> str:
    """Return a decision in words, such as ``relabel to 7``, ``remove (duplicate)`` or ``keep``.

    Of keep and unsure the cause is left out if it is a label error.

    Args:
        names: Of the classes.
    """
    if decision is None:
        return absent
    if decision.label is None:
        words = CAUSE_WORDS[decision.cause] if decision.cause else ""
        if decision.verdict == "remove":
            return f"remove ({words})"
        is_on_other = bool(words) and decision.cause != "label-error"
        return f"{decision.verdict} (considered: {words})" if is_on_other else decision.verdict
    is_class = 0 <= decision.label < len(names)
    return f"relabel to {names[decision.label] if is_class else f'class number {decision.label}'}"


@dataclass(frozen=True, kw_only=True)
class Entry(Decision):
    """One line of the log.

    Attributes:
        seq, at, group: Its number, its time (UTC), and the id of its group.
        by: Who wrote it; differs from ``reviewer`` where an undo restored another reviewer's decision.
        undoes: The group that this entry's group reverses: of a decision (undo) or of an undo (redo).
        saw: The newest group that was on the screen of ``by``; None if decisions of others were hidden.
    """

    seq: int
    at: str
    group: int
    by: str
    undoes: int | None = None
    saw: int | None = None


def check_reviewer(name: str) -> None:
    """Raise UserError if the name of a reviewer is blank, too long or not text."""
    if fault := text_fault(name, REVIEWER_LENGTH):
        raise UserError(f"The name of the reviewer {fault}.", "Enter another name.")


def check_comment(text: str) -> None:
    """Raise UserError if a comment is blank, too long or not text."""
    if fault := text_fault(text, COMMENT_LENGTH):
        raise UserError(f"The comment {fault}.", "Enter another text.")


@dataclass(frozen=True)
class Operation:
    """One operation of a reviewer.

    Attributes:
        reviewer: Whose operation it is; the decisions name this reviewer or none.
        token: Names the operation, so that it is applied once however often it is sent; empty: it is applied each time.
        saw: The :meth:`DecisionLog.version` on the reviewer's screen; None if decisions of others were hidden.

    Raises:
        UserError: "decide" has no decisions, or its reviewer no name.
        ValueError: an undo or redo has decisions, or a decision is of another reviewer.
    """

    act: Act
    reviewer: str
    token: str = ""
    decisions: tuple[Decision, ...] = ()
    saw: int | None = None

    def __post_init__(self) -> None:
        if self.act not in get_args(Act):
            raise UserError(f"“{self.act}” is not an operation.", f"Use one of {', '.join(get_args(Act))}.")
        if self.act == "decide" and not self.decisions:
            raise UserError("No decision was given.", "Select at least one item.")
        if self.act == "decide":
            check_reviewer(self.reviewer)
        if self.act != "decide" and self.decisions:
            raise ValueError("an undo or redo has no decisions")
        if any(decision.reviewer not in ("", self.reviewer) for decision in self.decisions):
            raise ValueError("the decisions of one group must be of one reviewer")


@dataclass(frozen=True)
class Result:
    """The effect of an operation.

    Attributes:
        group: The group that it appended; None if there was nothing to undo or redo.
        reversed_entries: Of an undo or redo, the decisions that it reversed.
        newer_entries: Of an undo or redo, the newer decisions of others, which remain in force.
    """

    group: int | None = None
    reversed_entries: tuple[Entry, ...] = ()
    newer_entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Comment:
    """A reviewer's comment on an item."""

    id: int
    item: Item
    reviewer: str
    text: str
    at: str


@dataclass(frozen=True)
class Snapshot:
    """A name for the state of the log after its entry ``seq``, which was the last of its group ``group``."""

    id: int
    name: str
    reviewer: str
    note: str
    at: str
    seq: int
    group: int
