"""Import a file of decisions: read and check it, then compare it with the log and write it in one transaction.

The table is that of :mod:`core.decisions.table`, as csv, parquet or JSON (a list of rows, or what
:func:`core.decisions.export_tables.write_decision_files` wrote), or one of cleanlab's (:mod:`core.decisions.cleanlab`).
"""

from __future__ import annotations

import difflib
import numbers
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.decisions.causes import CAUSES
from core.decisions.checks import known_keys
from core.decisions.cleanlab import is_cleanlab, issue_decisions
from core.decisions.image_names import with_image_ids
from core.decisions.log import DecisionLog, LogTransaction
from core.decisions.records import ISSUE_VERDICTS, Decision, Entry, Item, Operation, Verdict, check_reviewer
from core.decisions.table import COLUMNS, ITEM, VERDICTS
from core.decisions.texts import COMMENT_LENGTH, REVIEWER_LENGTH, is_blank, text_fault
from core.runtime.csv_files import unescape_formulas
from core.runtime.errors import UserError
from core.runtime.hashing import content_hash
from core.tasks.tables import read_table
from core.tasks.tasklist import TaskList

TABLE = "table of decisions"
"""What error messages call the file."""
_MOST_CHARACTERS = {
    "reviewer": REVIEWER_LENGTH,
    "comment": COMMENT_LENGTH,
    "reason": COMMENT_LENGTH,
    "source": COMMENT_LENGTH,
}


@dataclass(frozen=True)
class ImportedComment:
    """A comment on an item, as a file has it."""

    item: Item
    reviewer: str
    text: str


@dataclass(frozen=True)
class DecisionFile:
    """The contents of a file of decisions.

    Attributes:
        decisions, comments: In the order of the file.
        notes: What was left out and why, in sentences.
        are_proposals: The decisions are a program's: they do not apply to items that somebody has decided on.
        stated_causes: Item and reviewer of the decisions whose cause the file states. An implied cause does not replace
            one in the log.
    """

    source: str
    decisions: Sequence[Decision]
    comments: Sequence[ImportedComment] = ()
    notes: Sequence[str] = ()
    are_proposals: bool = False
    stated_causes: Collection[tuple[Item, str]] = ()


def read_decision_file(
    path: Path,
    images: ImageSet,
    tasks: TaskList,
    *,
    reviewer: str = "",
    as_: str = "unsure",
    by_position: bool = False,
) -> DecisionFile:
    """Read the decisions and comments in a file, checked against the images and the training tasks.

    Args:
        reviewer: Whose the decisions are that name no reviewer; empty: ``import``, or ``cleanlab`` for cleanlab's.
        as_: The verdict for an issue of cleanlab's, one of :data:`core.decisions.records.ISSUE_VERDICTS`.
        by_position: Find the images of cleanlab's rows by position if no column names them.

    Raises:
        UserError: the file cannot be read, or a row is invalid; the message names the first such row and its field.
    """
    if reviewer:
        check_reviewer(reviewer)
    table = read_table(path, TABLE, None)
    if isinstance(table, dict):
        lists = table.get("decisions"), table.get("comments", [])
        rows = [row for rows in lists if isinstance(rows, list) for row in rows]
        if not all(isinstance(one, list) for one in lists) or not all(isinstance(row, dict) for row in rows):
            raise UserError(
                f"{path.name} holds an object without a list of decisions, or of comments.",
                "Use a list of row objects, or a file that the export of decisions wrote.",
            )
        table = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    if as_ not in ISSUE_VERDICTS:
        raise UserError(f"An issue cannot become {as_!r}.", f"Use one of {', '.join(ISSUE_VERDICTS)}.")
    if is_cleanlab(table):
        decisions, notes = issue_decisions(table, path.name, images, tasks, as_, reviewer or "cleanlab", by_position)
        return DecisionFile(path.name, decisions, notes=notes, are_proposals=True)
    if by_position:
        raise UserError(
            f"{path.name} is not a table of cleanlab, so its rows have no positions.", "Omit --by-position."
        )
    if path.suffix == ".csv":
        table = unescape_formulas(table)
    table, notes = with_image_ids(table, path.name, images)
    return replace(_RowReader(table, path.name, images, tasks, reviewer or "import").read(), notes=notes)


_QUOTED = reprlib.Repr()
_QUOTED.maxstring = _QUOTED.maxother = 80


def _quoted(value: Any) -> str:
    """Return a value of the file for a message, shortened."""
    return _QUOTED.repr(value)


class _RowReader:
    """A reader of one table, row by row; rows are counted from 1."""

    def __init__(self, table: pd.DataFrame, source: str, images: ImageSet, tasks: TaskList, reviewer: str) -> None:
        if not len(table):
            raise UserError(f"{source}: the table has no rows.", f"A {TABLE} has the columns {', '.join(COLUMNS)}.")
        for either in (("verdict", "comment"), ("task_id", "image_id")):
            if not set(either) & set(table.columns):
                raise UserError(
                    f"{source}: the table has neither a column {either[0]!r} nor a column {either[1]!r}.",
                    f"A {TABLE} has the columns {', '.join(COLUMNS)}; see docs/review.md.",
                )
        self.table, self.source, self.images, self.reviewer = table, source, images, reviewer
        self.known = known_keys(tasks)
        self.classes = {name: number for number, name in enumerate(images.class_names)}

    def read(self) -> DecisionFile:
        decisions, comments, row_of, stated_causes = [], [], dict[tuple[Item, str], int](), set[tuple[Item, str]]()
        columns = [name for name in COLUMNS if name in self.table.columns]
        for number, values in enumerate(self.table[columns].itertuples(index=False, name=None), 1):
            row = {name: self._text(number, name, value) for name, value in zip(columns, values, strict=True)}
            item = self._item(number, row)
            for name in (name for name in _MOST_CHARACTERS if name in row):
                self._check_text(number, name, row[name])
            reviewer = row.get("reviewer") or self.reviewer
            if comment := row.get("comment", ""):
                comments.append(ImportedComment(item, reviewer, comment))
            decision = self._decision(number, row, item, reviewer)
            if decision is None:
                if not comment:
                    raise self._error(number, "verdict", "is empty", f"Use one of {', '.join(VERDICTS)}.")
                continue
            if (first_row := row_of.setdefault((item, reviewer), number)) != number:
                raise self._error(
                    number, "verdict", f"is {reviewer}'s second on the item of row {first_row}", "Keep one of the rows."
                )
            decisions.append(decision)
            if row.get("cause", ""):
                stated_causes.add((item, reviewer))
        return DecisionFile(self.source, decisions, comments, stated_causes=stated_causes)

    def _error(self, number: int, column: str, problem: str, fix: str) -> UserError:
        return UserError(f"{self.source}, row {number}: {column} {problem}.", fix)

    def _text(self, number: int, column: str, value: Any) -> str:
        """Return a cell as text; programs write names like 007 as numbers, and nothing as NaN."""
        if isinstance(value, str):
            return value if column != "reviewer" or not is_blank(value) else ""
        if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            return ""
        is_whole = isinstance(value, float) and value.is_integer()  # in a column of whole numbers with gaps
        if is_whole or (isinstance(value, numbers.Integral) and not isinstance(value, bool)):
            return str(int(value))
        raise self._error(number, column, f"is {_quoted(value)}, which is not text", "Correct it.")

    def _check_text(self, number: int, column: str, text: str) -> None:
        """Refuse a text that the log or a page could not hold."""
        may_be_blank = not text or column in ("reason", "source")
        if fault := text_fault(text, _MOST_CHARACTERS[column], may_be_blank=may_be_blank):
            raise self._error(number, column, fault, "Correct it, or leave it empty.")

    def _item(self, number: int, row: Mapping[str, str]) -> Item:
        kind, task, role, image = (row.get(name, "") for name in ITEM)
        implied = "image" if not task else "instance" if image else "task"
        if kind and kind not in ("task", "instance", "image"):
            raise self._error(number, "kind", f"is {_quoted(kind)}", "Use task, instance or image, or leave it empty.")
        if not task and not image:
            raise self._error(number, "image_id", "is empty, and so is task_id", "Name an image, a task or both.")
        if kind and kind != implied:
            ids = {"task": "only a task_id", "image": "only an image_id", "instance": "a task_id and an image_id"}[kind]
            problem = f"is {_quoted(kind)}, but the row names an item of kind {implied}"
            raise self._error(number, "kind", problem, f"A row of kind {kind} has {ids}.")
        if implied == "instance" and role not in ("support", "query"):
            fix = "Use support or query where a row names a task and an image."
            raise self._error(number, "role", f"is {_quoted(role)}", fix)
        if implied != "instance" and role:
            problem = f"is {_quoted(role)}, but the row names an item of kind {implied}"
            raise self._error(number, "role", problem, "Leave it empty.")
        if (implied, task, role, image) not in self.known:
            column = "task_id" if implied == "task" else "image_id"
            place = f" as {role} of task {_quoted(task)}" if implied == "instance" else ""
            raise self._error(
                number,
                column,
                f"{_quoted(image or task)} is not in the training tasks{place}",
                "Check the ids, or delete the row: only items of the training tasks can be decided on.",
            )
        return Item(implied, task, role, image)  # type: ignore[arg-type]  # one of the three

    def _decision(self, number: int, row: Mapping[str, str], item: Item, reviewer: str) -> Decision | None:
        verdict, name, cause = (row.get(column, "") for column in ("verdict", "label", "cause"))
        if not verdict and not name:
            return None
        if verdict not in VERDICTS:
            raise self._error(number, "verdict", f"is {_quoted(verdict)}", f"Use one of {', '.join(VERDICTS)}.")
        if verdict != "relabel" and name:
            problem = f"is {_quoted(name)}, but the verdict is {verdict}"
            raise self._error(number, "label", problem, "Leave it empty or use relabel.")
        label = None
        if verdict == "relabel":
            if item.kind == "task":
                raise self._error(number, "verdict", "is relabel, but a task has no label", "Relabel its images.")
            if name not in self.classes:
                suggestions = difflib.get_close_matches(name[:100], self.classes, 3) or list(self.classes)[:3]
                problem = f"{_quoted(name)} is not a class of {self.images.name}" if name else "is empty"
                fix = f"A relabel needs the name of a class, for example {', '.join(suggestions)}."
                raise self._error(number, "label", problem, fix)
            label = self.classes[name]
        if cause and cause not in CAUSES:
            raise self._error(
                number, "cause", f"is {_quoted(cause)}", f"Use one of {', '.join(CAUSES)}, or leave it empty."
            )
        if verdict == "relabel" and cause not in ("", "label-error"):
            problem = f"is {_quoted(cause)}, but the verdict is relabel"
            raise self._error(number, "cause", problem, "Leave it empty or use label-error.")
        source = row.get("source", "") or f"import:{self.source}"
        return Decision(item, cast(Verdict, verdict), label, row.get("reason", ""), reviewer, source, cause)


@dataclass
class ImportPlan:
    """The effect of importing a file on the present log.

    Attributes:
        decisions: All decisions to write, in the order of the file.
        new: Those on items that nobody has decided on.
        agreeing: Those that agree with another reviewer's decision.
        changing: Those that differ from the present decision, or in the cause from the reviewer's own, with that one.
        already_logged: Number of decisions that their reviewer has made already; they are not written again.
        comments: Comments that the log does not have.
        notes: What was left out and why, in sentences.
    """

    source: str
    decisions: list[Decision] = field(default_factory=list)
    new: list[Decision] = field(default_factory=list)
    agreeing: list[Decision] = field(default_factory=list)
    changing: list[tuple[Decision, Entry]] = field(default_factory=list)
    already_logged: int = 0
    comments: list[ImportedComment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.decisions and not self.comments

    @property
    def conflicts(self) -> int:
        """Number of items whose decision in the file contradicts another reviewer's; both stay, as a conflict."""
        return sum(
            present.reviewer != decision.reviewer and present.is_final and decision.is_final
            for decision, present in self.changing
        )

    @property
    def sentences(self) -> list[str]:
        """The plan in words."""
        counts = (
            (len(self.new), "on items that nobody has decided on"),
            (len(self.agreeing), "agreeing with another reviewer's"),
            (len(self.changing) - self.conflicts, "replacing the present one"),
            (self.conflicts, "contradicting another reviewer's: both are kept and shown as a conflict"),
            (self.already_logged, "already in the log: not written again"),
        )
        lines = [f"{number:,} {'decision' if number == 1 else 'decisions'} {text}" for number, text in counts if number]
        if self.comments:
            lines.append(f"{len(self.comments):,} {'comment' if len(self.comments) == 1 else 'comments'}")
        return [*(lines or ["nothing new"]), *self.notes]


def import_file(log: DecisionLog, file: DecisionFile, *, keep: bool = True) -> ImportPlan:
    """Write the decisions and comments of a file to the log, and return what was written.

    The plan is made and carried out in one transaction, so no other decision comes between. Decisions are written as if
    those of others had not been seen, so what differs from theirs is a conflict until somebody resolves it. A comment
    is written once, however often its file is imported.

    Args:
        keep: False: write to a copy of the log, which is dropped. So a dry run fails wherever the import would.

    Raises:
        UserError: the log cannot be written; it is then unchanged.
    """
    # Before the transaction, for which others wait.
    tokens = {comment: _token(comment) for comment in file.comments}
    with log.transaction(keep=keep) as transaction:
        plan = _plan(transaction, file)
        for operation in _operations(plan.decisions):
            transaction.apply(operation)
        for comment in plan.comments:
            transaction.comment(comment.item, comment.reviewer, comment.text, tokens[comment])
    return plan


def _token(comment: ImportedComment) -> str:
    """Return the token under which a comment is written once."""
    return content_hash("import", *astuple(comment.item), comment.reviewer, comment.text)


def _plan(log: LogTransaction, file: DecisionFile) -> ImportPlan:
    """Return what importing a file writes to the log."""
    plan, current, already_decided = ImportPlan(file.source, notes=list(file.notes)), log.current(), 0
    by_reviewer = {name: log.decisions_of(name) for name in {decision.reviewer for decision in file.decisions}}
    for decision in file.decisions:
        previous, present = by_reviewer[decision.reviewer].get(decision.item), current.get(decision.item)
        has_stated_cause = (decision.item, decision.reviewer) in file.stated_causes
        if (
            previous is not None
            and present is not None
            and previous.outcome == decision.outcome
            and (previous.cause == decision.cause or not has_stated_cause)
        ):
            plan.already_logged += 1
            continue
        if file.are_proposals and present is not None:
            already_decided += 1
            continue
        plan.decisions.append(decision)
        if present is None:
            plan.new.append(decision)
        elif present.outcome == decision.outcome and present.reviewer != decision.reviewer:
            plan.agreeing.append(decision)
        else:
            plan.changing.append((decision, present))
    if already_decided:
        plan.notes.append(f"{already_decided:,} issues on images that somebody has decided on: left out")
    existing = {ImportedComment(comment.item, comment.reviewer, comment.text) for comment in log.comments()}
    plan.comments = [comment for comment in dict.fromkeys(file.comments) if comment not in existing]
    return plan


def _operations(decisions: Sequence[Decision]) -> list[Operation]:
    """Return one group per reviewer, or more where several rows are on one item and must keep their order."""
    later: dict[Item, int] = {}
    groups: dict[tuple[int, str], list[Decision]] = {}
    for decision in reversed(decisions):
        level = later.get(decision.item, 0)
        later[decision.item] = level + 1
        groups.setdefault((level, decision.reviewer), []).append(decision)
    ordered = sorted(groups.items(), key=lambda group: -group[0][0])
    return [Operation("decide", reviewer, decisions=tuple(reversed(of_group))) for (_, reviewer), of_group in ordered]
