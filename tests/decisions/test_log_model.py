"""Operations, tokens, conflicts, snapshots and comments of the decision log agree with a simple model."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.decisions.log import Decision, DecisionLog, Entry, Item, Operation, Result
from tests.properties import examples

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the disk is not what is tested
REVIEWERS = ["Ann", "Bob", "Cid"]
ITEMS = [Item("image", image_id="cat"), Item("image", image_id="dog"), Item("instance", "t", "query", "cat")]
OPINIONS = [
    ("keep", None, "label-error"),
    ("keep", None, "duplicate"),
    ("remove", None, "label-error"),
    ("remove", None, "harmful"),
    ("relabel", 1, "label-error"),
    ("relabel", 2, "label-error"),
    ("unsure", None, "label-error"),
    ("clear", None, ""),
]
Said = tuple[str, int | None, str]
"""Verdict, label and cause; two decisions contradict each other if the first two differ."""


def said(decision: Decision) -> Said:
    return *decision.outcome, decision.cause


def decided(item: Item, said: Said) -> Decision:
    verdict, label, cause = said
    return Decision(item, verdict, label, cause=cause)  # type: ignore[arg-type]


@st.composite
def operation(draw: st.DrawFn) -> Operation:
    """Return operations with ``saw`` relative to the current version; the state machine makes it absolute."""
    act = draw(st.sampled_from(["decide", "decide", "decide", "undo", "redo"]))
    made = st.builds(decided, st.sampled_from(ITEMS), st.sampled_from(OPINIONS))
    decisions = tuple(draw(st.lists(made, min_size=1, max_size=3))) if act == "decide" else ()
    reviewer = draw(st.sampled_from(REVIEWERS))
    saw = draw(st.sampled_from([None, None, 0, 0, 1, 2, 5]))
    return Operation(act, reviewer, draw(st.sampled_from(["", "new"])), decisions, saw)


class Machine(RuleBasedStateMachine):
    """Model: the groups of decisions with the times (groups) at which each was made, undone, redone; the rest is
    worked out from these anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.version = 0
        self.made: dict[int, Operation] = {}
        self.turns: dict[int, list[int]] = {}
        self.done: dict[str, list[int]] = {name: [] for name in REVIEWERS}
        self.undone: dict[str, list[int]] = {name: [] for name in REVIEWERS}
        self.sent: list[tuple[Operation, Result]] = []
        self.states: dict[str, dict[Item, Said]] = {}
        self.outcome: list[tuple[Item, str, str]] = []
        self.open()

    @rule()
    def open(self) -> None:
        self.log = DecisionLog(Path(self.folder.name) / "log.sqlite")

    @rule(operations=st.lists(st.one_of(operation(), st.integers(0, 20)), min_size=1, max_size=4))
    def submit(self, operations: list[Operation | int]) -> None:
        """Submit new operations and, where a number was drawn, some that were sent before."""
        batch: list[Operation] = []
        expected: list[Result | int | None] = []
        for drawn in operations:
            if isinstance(drawn, int):
                if drawn < len(self.sent):
                    again, result = self.sent[drawn]
                    batch.append(again)
                    expected.append(result)
                continue
            token = drawn.token and f"token {len(self.sent)} {len(batch)}"
            saw = None if drawn.saw is None else max(0, self.version - drawn.saw)
            batch.append(replace(drawn, token=token, saw=saw))
            expected.append(self.apply_to_model(batch[-1]))
        for one, result, wanted in zip(batch, self.log.submit(batch), expected, strict=True):
            if isinstance(wanted, Result):
                assert result == wanted
                continue
            assert result.group == wanted
            if one.token:
                self.sent.append((one, result))

    def apply_to_model(self, one: Operation) -> int | None:
        """Apply a new operation to the model and return its group."""
        if one.act == "decide":
            root = self.version + 1
            self.made[root], self.turns[root] = one, []
            self.done[one.reviewer].append(root)
            self.undone[one.reviewer].clear()
        else:
            source, target = self.done[one.reviewer], self.undone[one.reviewer]
            if one.act == "redo":
                source, target = target, source
            if not source:
                return None
            root = source.pop()
            target.append(root)
        self.version += 1
        self.turns[root].append(self.version)
        return self.version

    @rule(item=st.sampled_from(ITEMS), reviewer=st.sampled_from(REVIEWERS), sent=st.sampled_from(["", "again"]))
    def comment(self, item: Item, reviewer: str, sent: str) -> None:
        before, token = self.log.change_counter(), sent and f"comment {len(self.outcome)}"
        text = f"{reviewer} {len(self.outcome)}"
        comment = self.log.comment(item, reviewer, text, token)
        self.outcome.append((item, reviewer, text))
        assert self.log.change_counter() > before
        if token:
            assert self.log.comment(item, reviewer, text, token) == comment

    @rule(reviewer=st.sampled_from(REVIEWERS), sent=st.sampled_from(["", "again"]))
    def snapshot(self, reviewer: str, sent: str) -> None:
        before, name = self.log.change_counter(), f"snapshot {len(self.states)}"
        snapshot = self.log.snapshot(name, reviewer, "a note", sent and name)
        self.states[name] = self.now()
        assert self.log.change_counter() > before
        assert (snapshot.name, snapshot.note, snapshot.group) == (name, "a note", self.version)
        assert self.log.state(snapshot.seq) == self.log.state(name)
        if sent:
            assert self.log.snapshot(name, reviewer, "a note", name) == snapshot

    @precondition(lambda self: self.states)
    @rule(number=st.integers(0, 20), reviewer=st.sampled_from(REVIEWERS), sent=st.sampled_from(["", "again"]))
    def restore(self, number: int, reviewer: str, sent: str) -> None:
        name = list(self.states)[number % len(self.states)]
        before, then = self.now(), self.states[name]
        changed = [item for item in before | then if before.get(item) != then.get(item)]
        token = sent and f"restored at {self.version} {len(self.sent)} {number}"
        if known := [result for operation, result in self.sent if operation.token == token and token]:
            assert [self.log.restore(name, reviewer, token)] == known
            return
        result = self.log.restore(name, reviewer, token)
        decisions = tuple(decided(item, then.get(item, ("clear", None, ""))) for item in changed)
        group = self.apply_to_model(Operation("decide", reviewer, token, decisions, self.version)) if changed else None
        assert result == Result(group)
        assert self.now() == then
        if token:
            assert self.log.restore(name, reviewer, token) == result
            self.sent.append((Operation("undo", reviewer, token), result))

    def teardown(self) -> None:
        self.folder.cleanup()

    def view(self, reviewer: str, item: Item, version: int) -> tuple[int, int, Said] | None:
        """Return group, position in it, and content of a reviewer's decision in force at a version."""
        view = None
        for root, operation in self.made.items():
            if operation.reviewer == reviewer and sum(turn <= version for turn in self.turns[root]) % 2:
                for place, decision in enumerate(operation.decisions):
                    if decision.item == item:
                        view = None if decision.verdict == "clear" else (root, place, said(decision))
        return view

    def now(self) -> dict[Item, Said]:
        last = {d.item: d for r, made in self.made.items() if len(self.turns[r]) % 2 for d in made.decisions}
        return {item: said(decision) for item, decision in last.items() if decision.verdict != "clear"}

    def conflict(self, item: Item) -> list[tuple[str, Said]]:
        """Return the conflicting decisions, oldest first; empty if there is no conflict."""
        views = {name: self.view(name, item, self.version) for name in REVIEWERS}
        firm = sorted((*view, name) for name, view in views.items() if view and view[2][0] != "unsure")
        for root, _, opinion, _ in firm:
            newest, _, newest_opinion, _ = firm[-1]
            if opinion[:2] == newest_opinion[:2]:
                continue
            saw = self.made[newest].saw
            seen = None if saw is None else self.view(self.made[root].reviewer, item, saw)
            if seen is None or seen[2][:2] != opinion[:2]:
                return [(name, opinion) for _, _, opinion, name in firm]
        return []

    @invariant()
    def agrees(self) -> None:
        def all_said(entries: dict[Item, Entry]) -> dict[Item, Said]:
            return {item: said(entry) for item, entry in entries.items()}

        current = self.log.current()
        assert (self.log.version(), all_said(current)) == (self.version, self.now())
        assert [entry.seq for entry in current.values()] == sorted(entry.seq for entry in current.values())
        for name in REVIEWERS:
            views = {item: self.view(name, item, self.version) for item in ITEMS}
            own = self.log.decisions_of(name)
            assert all_said(own) == {item: view[2] for item, view in views.items() if view}
            assert all(entry.reviewer == entry.by == name and entry.undoes is None for entry in own.values())
        conflicts = {
            item: [(entry.reviewer, said(entry)) for entry in entries] for item, entries in self.log.conflicts().items()
        }
        assert conflicts == {item: found for item in ITEMS if (found := self.conflict(item))}
        for name, then in self.states.items():
            assert all_said(self.log.state(name)) == then
            changes = {i: tuple(e and said(e) for e in pair) for i, pair in self.log.difference(name).items()}
            now = self.now()
            both = {item: (then.get(item), now.get(item)) for item in then | now}
            assert changes == {item: pair for item, pair in both.items() if pair[0] != pair[1]}
        assert [(c.item, c.reviewer, c.text) for c in self.log.comments()] == self.outcome
        on = [(c.item, c.reviewer, c.text) for c in self.log.comments(ITEMS[0])]
        assert on == [comment for comment in self.outcome if comment[0] == ITEMS[0]]


TestMachine = Machine.TestCase
TestMachine.settings = examples(30, stateful_step_count=20)
