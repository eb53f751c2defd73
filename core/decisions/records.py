"""What the decision log (:mod:`core.decisions.log`) takes and gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from core.runtime.errors import UserError

Kind = Literal["task", "instance", "image"]
Verdict = Literal["keep", "remove", "relabel", "unsure", "clear"]
Act = Literal["decide", "undo", "redo"]

_VERDICTS = get_args(Verdict)
# Of an item: its kind, whether it has a task_id, its role, whether it has an image_id.
_SHAPES = {
    ("task", True, "", False),
    ("instance", True, "support", True),
    ("instance", True, "query", True),
    ("image", False, "", True),
}


@dataclass(frozen=True)
class Item:
    """What a decision is about: a whole task, one image in one role of a task, or an image wherever it occurs.

    Raises:
        UserError: a field that the kind needs is empty, or one that it does not have is given.
    """

    kind: Kind
    task_id: str = ""
    role: str = ""
    image_id: str = ""

    def __post_init__(self) -> None:
        if (self.kind, bool(self.task_id), self.role, bool(self.image_id)) not in _SHAPES:
            raise UserError(
                f"This names nothing to decide on: {self}.",
                "A task has a task_id; an instance a task_id, the role support or query, and an image_id; "
                "an image only an image_id.",
            )


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided about an item; ``source`` names the ranking or run that brought it up.

    Raises:
        UserError: an unknown verdict, or a label where there must be none, or none where there must be one.
    """

    item: Item
    verdict: Verdict
    label: int | None = None
    reason: str = ""
    reviewer: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in _VERDICTS:
            raise UserError(f"“{self.verdict}” is not a verdict.", f"Use one of {', '.join(_VERDICTS)}.")
        if (self.verdict == "relabel") != (self.label is not None):
            raise UserError("“relabel” needs a new label, and no other verdict has one.", "Choose the new class.")
        if self.verdict == "relabel" and self.item.kind == "task":
            raise UserError("A task has no label of its own.", "Relabel an image.")
        if self.label is not None and not -(2**63) <= self.label < 2**63:
            raise UserError(f"{self.label} is not a class number.", "Choose an existing class.")

    @property
    def outcome(self) -> tuple[Verdict, int | None]:
        """The verdict and the label: two decisions agree if these are equal."""
        return self.verdict, self.label

    @property
    def is_final(self) -> bool:
        """Whether it says what is to be done with the item."""
        return self.verdict not in ("unsure", "clear")


@dataclass(frozen=True, kw_only=True)
class Entry(Decision):
    """One line of the log.

    ``by`` wrote it; it differs from ``reviewer`` where an undo by one brought back the decision of another.
    ``undoes`` is the group that this entry's group takes back: a decision's (undo) or an undo's (redo).
    ``saw`` is the newest group that was on the screen of ``by``; None if he saw nothing of others.
    """

    seq: int
    at: str
    group: int
    by: str
    undoes: int | None = None
    saw: int | None = None


@dataclass(frozen=True)
class Operation:
    """One act of a reviewer.

    ``token`` names the operation, so that it is done once however often it is sent; empty, it is done each time.
    ``saw`` is the :meth:`DecisionLog.version` that was on his screen; None if he saw nothing of what others decided.
    The decisions become his, whatever reviewer they name (but it may not be another).

    Raises:
        UserError: there is nothing to decide.
        ValueError: an undo or redo with decisions, or decisions of somebody else.
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
        if self.act != "decide" and self.decisions:
            raise ValueError("an undo or redo has no decisions")
        if any(decision.reviewer not in ("", self.reviewer) for decision in self.decisions):
            raise ValueError("the decisions of one group must be of one reviewer")


@dataclass(frozen=True)
class Result:
    """What an operation did.

    ``group`` is None if there was nothing to undo or redo. Of an undo or redo, ``taken`` are the decisions taken back
    (or put back), and ``kept`` the newer decisions of others that stay in place of the rest.
    """

    group: int | None = None
    taken: tuple[Entry, ...] = ()
    kept: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Comment:
    """What somebody said about an item."""

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
