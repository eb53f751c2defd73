"""What importing a file of decisions changes in the log: shown first, then written in full or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.decisions.import_file import DecisionFile, ImportedComment
from core.decisions.log import DecisionLog
from core.decisions.records import Decision, Entry, Item, Operation
from core.decisions.table import ITEM
from core.runtime.files import content_hash


@dataclass
class ImportPlan:
    """The effect of importing a file on the present log.

    Attributes:
        decisions: All decisions to write, in the order of the file.
        new: Those on items that nobody has decided on.
        agreeing: Those that agree with another reviewer's decision.
        changing: Those that differ from the present decision, with that decision.
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


def plan_import(log: DecisionLog, file: DecisionFile) -> ImportPlan:
    """Return what importing a file would write to the log."""
    plan, current, already_decided = ImportPlan(file.source, notes=list(file.notes)), log.current(), 0
    by_reviewer = {name: log.decisions_of(name) for name in {decision.reviewer for decision in file.decisions}}
    for decision in file.decisions:
        previous, present = by_reviewer[decision.reviewer].get(decision.item), current.get(decision.item)
        if previous is not None and previous.outcome == decision.outcome and present is not None:
            plan.already_logged += 1
            continue
        if file.are_proposals and present is not None:
            already_decided += 1
            continue
        plan.decisions.append(decision)
        if present is None:
            plan.new.append(decision)
        elif present.outcome == decision.outcome:
            plan.agreeing.append(decision)
        else:
            plan.changing.append((decision, present))
    if already_decided:
        plan.notes.append(f"{already_decided:,} issues on images that somebody has decided on: left out")
    existing = {ImportedComment(comment.item, comment.reviewer, comment.text) for comment in log.comments()}
    plan.comments = [comment for comment in file.comments if comment not in existing]
    return plan


def write_import(log: DecisionLog, plan: ImportPlan) -> None:
    """Write a plan to the log: its decisions in one transaction, then its comments.

    Decisions are written as if those of others had not been seen, so what differs from theirs is a conflict until
    somebody resolves it. A comment is written once, however often its file is imported.

    Raises:
        UserError: the log cannot be written; no decision is then written.
    """
    log.submit(_operations(plan.decisions))
    for comment in plan.comments:
        token = content_hash("import", *(getattr(comment.item, name) for name in ITEM), comment.reviewer, comment.text)
        log.comment(comment.item, comment.reviewer, comment.text, token)


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
