"""Bring in decisions from a file: what it would do, said beforehand, and then all of it or nothing.

The table is that of :mod:`core.decisions.table`, as csv, parquet or JSON (a list of rows, or what
:func:`core.actions.export_decisions.export_decisions` wrote), or a table of cleanlab's
(:mod:`core.decisions.cleanlab`).
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from core.decisions.cleanlab import BECOMES, is_cleanlab, proposals
from core.decisions.log import Decision, DecisionLog, Entry, Item, Operation, Verdict
from core.decisions.table import COLUMNS, ITEM, VERDICTS, unescape_formulas
from core.runtime.errors import UserError
from core.runtime.files import content_hash
from core.tasks.tables import read_table
from core.workspace.workspace import Project, Workspace

WHAT = "table of decisions"


@dataclass(frozen=True)
class ImportedComment:
    """A comment on an item."""

    item: Item
    reviewer: str
    text: str


@dataclass(frozen=True)
class ImportPlan:
    """What bringing in a file would do to the log as it is.

    Attributes:
        source: Name of the file.
        new: Decisions on items that nobody has decided on.
        agreeing: Decisions that say what somebody else has decided, by a reviewer who had not said so.
        changing: Decisions that say something else than the present one, which comes along.
        same: How many decisions their reviewer has made already; they are not written again.
        comments: Comments that the log does not have.
        notes: What was left out, and why.
    """

    source: str
    new: tuple[Decision, ...] = ()
    agreeing: tuple[Decision, ...] = ()
    changing: tuple[tuple[Decision, Entry], ...] = ()
    same: int = 0
    comments: tuple[ImportedComment, ...] = ()
    notes: tuple[str, ...] = ()
    ordered: tuple[Decision, ...] = field(default=(), repr=False)
    """All decisions to write, in the order of the file."""

    @property
    def empty(self) -> bool:
        return not self.ordered and not self.comments

    @property
    def conflicts(self) -> int:
        """How many items the file gives another decision than somebody else did; both stay, as a conflict."""
        return sum(
            before.reviewer != decision.reviewer and before.is_final and decision.is_final
            for decision, before in self.changing
        )

    @property
    def sentences(self) -> list[str]:
        """The plan in words."""
        own = len(self.changing) - self.conflicts
        counts = (
            (len(self.new), "on items that nobody has decided on"),
            (len(self.agreeing), "that agree with somebody else's"),
            (own, "that take the place of the present one"),
            (self.conflicts, "against somebody else's: both are kept and shown as a conflict"),
            (self.same, "that are in the log already, so they are not written again"),
        )
        said = [f"{number:,} {'decision' if number == 1 else 'decisions'} {what}" for number, what in counts if number]
        if self.comments:
            said.append(f"{len(self.comments):,} {'comment' if len(self.comments) == 1 else 'comments'}")
        return [*(said or ["nothing new"]), *self.notes]


def read_decisions(path: Path, project: Project, *, reviewer: str = "", as_: str = "unsure") -> Reading:
    """The decisions and comments in a file, checked against the problem.

    Args:
        reviewer: Whose the decisions are that name nobody; empty: ``import``, or ``cleanlab`` for cleanlab's.
        as_: What an issue of cleanlab's becomes, one of :data:`core.decisions.cleanlab.BECOMES`.

    Raises:
        UserError: the file cannot be read, or one of its rows cannot be; the first such row and its field are named.
    """
    read = read_table(path, WHAT, None)
    if isinstance(read, dict):
        read = _exported(read, path.name)
    if as_ not in BECOMES:
        raise UserError(f"An issue cannot become {as_!r}.", f"Use one of {', '.join(BECOMES)}.")
    if is_cleanlab(read):
        decisions, notes = proposals(read, path.name, project, as_, reviewer or "cleanlab")
        return Reading(tuple(decisions), (), tuple(notes), proposed=True)
    if path.suffix == ".csv":
        read = unescape_formulas(read)
    return _Rows(read, path.name, project, reviewer or "import").read()


@dataclass(frozen=True)
class Reading:
    """What stands in a file. Proposals leave alone what somebody has decided on."""

    decisions: tuple[Decision, ...]
    comments: tuple[ImportedComment, ...] = ()
    notes: tuple[str, ...] = ()
    proposed: bool = False


def plan_import(workspace: Workspace, path: Path, *, reviewer: str = "", as_: str = "unsure") -> ImportPlan:
    """What :func:`import_decisions` would do; the arguments and errors are those of :func:`read_decisions`."""
    return _planned(workspace.decisions, read_decisions(path, workspace.project(), reviewer=reviewer, as_=as_), path)


def import_decisions(workspace: Workspace, path: Path, *, reviewer: str = "", as_: str = "unsure") -> ImportPlan:
    """Write what stands in a file to the log, in one transaction, and return what was done.

    Decisions are written as made without having seen those of others, so what differs from theirs is a conflict until
    somebody resolves it. Comments follow, each once, however often the file is brought in.

    Raises:
        UserError: as :func:`read_decisions`, or the log cannot be written; it then is as it was.
    """
    made = plan_import(workspace, path, reviewer=reviewer, as_=as_)
    workspace.decisions.submit(_operations(made.ordered))
    for said in made.comments:
        token = content_hash("import", *(getattr(said.item, name) for name in ITEM), said.reviewer, said.text)
        workspace.decisions.comment(said.item, said.reviewer, said.text, token)
    return made


def _operations(decisions: Sequence[Decision]) -> list[Operation]:
    """One group a reviewer, or two where rows on the same item must keep their order."""
    later: dict[Item, int] = {}
    groups: dict[tuple[int, str], list[Decision]] = {}
    for decision in reversed(decisions):
        level = later.get(decision.item, 0)
        later[decision.item] = level + 1
        groups.setdefault((level, decision.reviewer), []).append(decision)
    ordered = sorted(groups.items(), key=lambda one: -one[0][0])
    return [Operation("decide", who, decisions=tuple(reversed(some))) for (_, who), some in ordered]


def _planned(log: DecisionLog, reading: Reading, path: Path) -> ImportPlan:
    current = log.current()
    own = {who: log.own(who) for who in {decision.reviewer for decision in reading.decisions}}
    new, agreeing, changing, ordered, same, decided = [], [], [], [], 0, 0
    for decision in reading.decisions:
        mine, before = own[decision.reviewer].get(decision.item), current.get(decision.item)
        if mine is not None and mine.said == decision.said and before is not None:
            same += 1
            continue
        if reading.proposed and before is not None:
            decided += 1
            continue
        ordered.append(decision)
        if before is None:
            new.append(decision)
        elif before.said == decision.said:
            agreeing.append(decision)
        else:
            changing.append((decision, before))
    notes = list(reading.notes)
    if decided:
        notes.append(f"{decided:,} issues on images that were decided on already: left alone")
    known = {(said.item, said.reviewer, said.text) for said in log.comments()} if reading.comments else set()
    comments = tuple(said for said in reading.comments if (said.item, said.reviewer, said.text) not in known)
    return ImportPlan(
        path.name, tuple(new), tuple(agreeing), tuple(changing), same, comments, tuple(notes), ordered=tuple(ordered)
    )


def _exported(written: Mapping[str, Any], source: str) -> pd.DataFrame:
    """The rows of an export in JSON."""
    rows = [*written.get("decisions", ()), *written.get("comments", ())] if "decisions" in written else None
    if rows is None or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{source} holds an object without a list of decisions.",
            "Use a list of row objects, or a file that the export of decisions wrote.",
        )
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object)


class _Rows:
    """The rows of one table, read one by one."""

    def __init__(self, table: pd.DataFrame, source: str, project: Project, reviewer: str) -> None:
        if not len(table):
            raise UserError(f"{source}: there are no rows.", f"A {WHAT} has the columns {', '.join(COLUMNS)}.")
        for wanted in (("verdict", "comment"), ("task_id", "image_id")):
            if not set(wanted) & set(table.columns):
                raise UserError(
                    f"{source}: there is no column {wanted[0]!r} nor {wanted[1]!r}.",
                    f"A {WHAT} has the columns {', '.join(COLUMNS)}; see docs/review.md.",
                )
        self.table, self.source, self.project, self.reviewer = table, source, project, reviewer
        self.classes = {name: number for number, name in enumerate(project.images.class_names)}

    @cached_property
    def known(self) -> set[Item]:
        rows = self.project.tasks.train.rows
        instances = {Item("instance", *key) for key in rows[list(ITEM[1:])].itertuples(index=False)}
        tasks = {Item("task", task) for task in rows["task_id"].unique()}
        return instances | tasks | {Item("image", image_id=image) for image in rows["image_id"].unique()}

    def read(self) -> Reading:
        decisions, comments, seen = [], [], dict[tuple[Item, str], int]()
        columns = [name for name in COLUMNS if name in self.table.columns]
        for number, values in enumerate(self.table[columns].itertuples(index=False, name=None), 1):
            row = {name: self._text(number, name, value) for name, value in zip(columns, values, strict=True)}
            item = self._item(number, row)
            named = row.get("reviewer", "")
            reviewer = named if named.strip() else self.reviewer
            if comment := row.get("comment", ""):
                comments.append(ImportedComment(item, reviewer, comment))
            decision = self._decision(number, row, item, reviewer)
            if decision is None:
                if not comment:
                    raise self._bad(number, "verdict", "is empty", f"Use one of {', '.join(VERDICTS)}.")
                continue
            if (first := seen.setdefault((item, reviewer), number)) != number:
                raise self._bad(
                    number,
                    "verdict",
                    f"is {reviewer}'s second on the same item as row {first}",
                    "Keep one of the rows.",
                )
            decisions.append(decision)
        return Reading(tuple(decisions), tuple(comments))

    def _bad(self, number: int, column: str, what: str, fix: str) -> UserError:
        return UserError(f"{self.source}, row {number}: {column} {what}.", fix)

    def _text(self, number: int, column: str, value: Any) -> str:
        """A cell as text; programs write names like 007 as numbers, and nothing as NaN."""
        if isinstance(value, str):
            return value
        if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            return ""
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return str(int(value))
        if isinstance(value, float) and value.is_integer():
            return str(int(value))  # a column of whole numbers with gaps
        raise self._bad(number, column, f"is {value!r}, which is not text", "Correct it.")

    def _item(self, number: int, row: Mapping[str, str]) -> Item:
        kind, task, role, image = (row.get(name, "") for name in ITEM)
        means = "image" if not task else "instance" if image else "task"
        if kind and kind not in ("task", "instance", "image"):
            raise self._bad(number, "kind", f"is {kind!r}", "Use task, instance or image, or leave it empty.")
        if not task and not image:
            raise self._bad(number, "image_id", "is empty, and so is task_id", "Name an image, a task or both.")
        if kind and kind != means:
            has = {"task": "only a task_id", "image": "only an image_id", "instance": "a task_id and an image_id"}[kind]
            raise self._bad(
                number,
                "kind",
                f"is {kind!r}, but the row names one of kind {means}",
                f"A row of kind {kind} has {has}.",
            )
        if means == "instance" and role not in ("support", "query"):
            raise self._bad(
                number, "role", f"is {role!r}", "Use support or query where a row names a task and an image."
            )
        if means != "instance" and role:
            raise self._bad(number, "role", f"is {role!r}, but the row names one of kind {means}", "Leave it empty.")
        item = Item(means, task, role, image)  # type: ignore[arg-type]  # one of the three
        if item not in self.known:
            column = "task_id" if means == "task" else "image_id"
            where = f" as {role} of task {task!r}" if means == "instance" else ""
            raise self._bad(
                number,
                column,
                f"{(image or task)!r} is not in the training tasks{where}",
                "Check the ids, or take the row out: only what is in the training tasks can be decided on.",
            )
        return item

    def _decision(self, number: int, row: Mapping[str, str], item: Item, reviewer: str) -> Decision | None:
        verdict, name = row.get("verdict", ""), row.get("label", "")
        if not verdict and not name:
            return None
        if verdict not in VERDICTS:
            raise self._bad(number, "verdict", f"is {verdict!r}", f"Use one of {', '.join(VERDICTS)}.")
        if verdict != "relabel" and name:
            raise self._bad(number, "label", f"is {name!r}, but the verdict is {verdict}", "Leave it empty or relabel.")
        label = None
        if verdict == "relabel":
            if item.kind == "task":
                raise self._bad(number, "verdict", "is relabel, but a task has no label", "Relabel its images.")
            if name not in self.classes:
                near = difflib.get_close_matches(name, self.classes, 3) or list(self.classes)[:3]
                what = f"{name!r} is not a class of {self.project.images.name}" if name else "is empty"
                raise self._bad(
                    number, "label", what, f"A relabel needs the name of a class, for example {', '.join(near)}."
                )
            label = self.classes[name]
        source = row.get("source", "") or f"import:{self.source}"
        return Decision(item, cast(Verdict, verdict), label, row.get("reason", ""), reviewer, source)
