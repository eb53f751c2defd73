"""The log of decisions: it agrees with a simple model, and nothing acknowledged is ever lost."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.decisions.causes import CAUSES
from core.decisions.database import SCHEMA_VERSION
from core.decisions.log import Decision, DecisionLog, Entry, Item
from core.decisions.texts import REVIEWER_LENGTH, text_fault
from core.runtime.errors import UserError
from tests.decisions.sqlite_errors import sqlite_code
from tests.properties import examples

ROOT = Path(__file__).parents[2]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # for property tests: what counts there is not the disk
CAT = Item("image", image_id="cat.png")
DOG = Item("image", image_id="dog.png")
TASK = Item("task", task_id="t1")
ITEMS = [CAT, DOG, TASK, Item("instance", "t1", "support", "cat.png"), Item("instance", "t1", "query", "cat.png")]


def is_name(text: str) -> bool:
    return not text_fault(text, REVIEWER_LENGTH)


any_text = st.text(st.characters(exclude_categories=()))  # with the lone surrogates of undecodable file names


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(tmp_path / "decisions.sqlite")


def content(entry: Decision) -> Decision:
    return Decision(entry.item, entry.verdict, entry.label, entry.reason, entry.reviewer, entry.source, entry.cause)


def state(log: DecisionLog) -> dict[Item, Decision]:
    return {item: content(entry) for item, entry in log.current().items()}


@st.composite
def decision(draw: st.DrawFn) -> Decision:
    verdict = draw(st.sampled_from(["keep", "remove", "unsure", "clear", "relabel"]))
    item = draw(st.sampled_from([i for i in ITEMS if verdict != "relabel" or i.kind != "task"]))
    label = draw(st.integers(-(2**63), 2**63 - 1)) if verdict == "relabel" else None
    cause = draw(st.sampled_from(["", *CAUSES])) if verdict not in ("relabel", "clear") else ""
    return Decision(item, verdict, label, draw(any_text), source=draw(any_text), cause=cause)


class LogMachine(RuleBasedStateMachine):
    """Model: a list of [reviewer, decisions, in force]; the state is what the groups in force leave when replayed."""

    reviewers = st.sampled_from(["Ann", "Bob"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.groups: list[list] = []
        self.done: dict[str, list[int]] = {"Ann": [], "Bob": []}
        self.undone: dict[str, list[int]] = {"Ann": [], "Bob": []}
        self.past: list[Entry] = []
        self.open()

    @rule()
    def open(self) -> None:
        self.log = DecisionLog(Path(self.folder.name) / "log.sqlite")

    @rule(reviewer=reviewers, made=st.lists(decision(), min_size=1, max_size=4))
    def append(self, reviewer: str, made: list[Decision]) -> None:
        made = [replace(d, reviewer=reviewer) for d in made]
        before = self.log.version()
        group = self.log.append(made)
        assert self.log.version() == group > before
        assert [content(entry) for entry in self.log.history() if entry.group == group] == made
        self.done[reviewer].append(len(self.groups))
        self.undone[reviewer].clear()
        self.groups.append([reviewer, made, True])

    @precondition(lambda self: self.groups)
    @rule(reviewer=reviewers)
    def undo(self, reviewer: str) -> None:
        self.flip(reviewer, self.done[reviewer], self.undone[reviewer], self.log.undo)

    @precondition(lambda self: self.groups)
    @rule(reviewer=reviewers)
    def redo(self, reviewer: str) -> None:
        self.flip(reviewer, self.undone[reviewer], self.done[reviewer], self.log.redo)

    def flip(self, reviewer: str, source: list[int], target: list[int], call: Callable) -> None:
        before, version = state(self.log), self.log.version()
        reversal = call(reviewer)
        if not source:
            assert (reversal.reversed_entries, reversal.newer_entries, self.log.version()) == ((), (), version)
            return
        number = source.pop()
        target.append(number)
        group = self.groups[number]
        group[2] = not group[2]
        last = {made.item: made for made in group[1]}
        newer = {d.item: d for _, made, force in self.groups[number + 1 :] if force for d in made}
        assert {content(e) for e in reversal.reversed_entries} == {d for item, d in last.items() if item not in newer}
        assert {content(e) for e in reversal.newer_entries} == {newer[item] for item in last if item in newer}
        assert all(e.reviewer != reviewer for e in reversal.newer_entries)
        after = state(self.log)
        touched = {e.item for e in reversal.reversed_entries}
        assert {i: d for i, d in after.items() if i not in touched} == {
            i: d for i, d in before.items() if i not in touched
        }
        written = [e for e in self.log.history() if e.group > version]
        assert {e.item for e in written} == touched
        assert all(e.by == reviewer and e.undoes is not None for e in written)

    @invariant()
    def agrees(self) -> None:
        expected = {d.item: d for _, made, force in self.groups if force for d in made}
        assert state(self.log) == {item: d for item, d in expected.items() if d.verdict != "clear"}
        history = self.log.history()
        assert history[: len(self.past)] == self.past
        assert [entry.seq for entry in history] == list(range(1, len(history) + 1))
        latest = {entry.item: entry for entry in history}
        assert self.log.current() == {item: entry for item, entry in latest.items() if entry.verdict != "clear"}
        self.past = history

    def teardown(self) -> None:
        self.folder.cleanup()


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = examples(25, stateful_step_count=25)


@given(made=st.lists(st.lists(decision(), min_size=1, max_size=4), min_size=1, max_size=5))
@examples(20)
def test_undo_and_redo_of_one_reviewer_visit_the_same_states(made: list[list[Decision]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        log = DecisionLog(Path(folder) / "log.sqlite")
        states = [state(log)]
        for group in made:
            log.append([replace(d, reviewer="Ann") for d in group])
            states.append(state(log))
        for expected in reversed(states[:-1]):
            log.undo("Ann")
            assert state(log) == expected
        for expected in states[1:]:
            log.redo("Ann")
            assert state(log) == expected


def test_undo_keeps_and_reports_the_newer_decision_of_somebody_else(log: DecisionLog) -> None:
    log.append([Decision(CAT, "remove", reviewer="Ann"), Decision(DOG, "remove", reviewer="Ann")])
    log.append([Decision(CAT, "keep", reviewer="Bob")])
    reversal = log.undo("Ann")
    assert [entry.item for entry in reversal.reversed_entries] == [DOG]
    assert [(entry.item, entry.reviewer) for entry in reversal.newer_entries] == [(CAT, "Bob")]
    assert state(log) == {CAT: Decision(CAT, "keep", reviewer="Bob")}


def test_undo_restores_another_reviewers_decision_under_that_name(log: DecisionLog) -> None:
    log.append([Decision(CAT, "relabel", 3, "a lynx", "Ann", "run 1")])
    log.append([Decision(CAT, "keep", reviewer="Bob")])
    log.undo("Bob")
    entry = log.current()[CAT]
    assert content(entry) == Decision(CAT, "relabel", 3, "a lynx", "Ann", "run 1")
    assert (entry.by, entry.undoes) == ("Bob", 2)


def test_undo_does_not_restore_what_its_reviewer_has_undone_since(log: DecisionLog) -> None:
    log.append([Decision(CAT, "remove", reviewer="Ann")])
    log.append([Decision(CAT, "keep", reviewer="Bob")])
    assert log.undo("Ann").reversed_entries == ()
    log.undo("Bob")
    assert log.current() == {}


def test_the_last_of_two_decisions_on_one_item_in_a_group_counts(log: DecisionLog) -> None:
    log.append([Decision(CAT, "remove", reviewer="Ann"), Decision(CAT, "keep", reviewer="Ann")])
    assert log.current()[CAT].verdict == "keep"
    assert [entry.verdict for entry in log.undo("Ann").reversed_entries] == ["keep"]
    assert log.current() == {}


@given(texts=st.tuples(any_text, st.text(max_size=REVIEWER_LENGTH).filter(is_name), any_text, any_text.filter(bool)))
@examples(50)
def test_any_text_is_stored_unchanged(texts: tuple[str, str, str, str]) -> None:
    reason, reviewer, source, image = texts
    made = Decision(Item("image", image_id=image), "remove", None, reason, reviewer, source)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        log = DecisionLog(Path(folder) / "log.sqlite")
        log.append([made])
        assert state(log) == {made.item: made}
        assert [content(entry) for entry in log.undo(reviewer).reversed_entries] == [made]
        assert log.current() == {}


def test_thousands_of_decisions_are_one_group(log: DecisionLog) -> None:
    bulk = [Decision(Item("image", image_id=f"{number}.png"), "remove", reviewer="Ann") for number in range(10_000)]
    group = log.append(bulk)
    assert {entry.group for entry in log.current().values()} == {group}
    assert len(log.undo("Ann").reversed_entries) == len(bulk)
    assert log.current() == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Item("task"),
        lambda: Item("task", "t", image_id="i"),
        lambda: Item("instance", "t", image_id="i"),
        lambda: Item("instance", "t", "test", "i"),
        lambda: Item("image", "t", image_id="i"),
        lambda: Item("folder", "t"),  # type: ignore[arg-type]
        lambda: Decision(CAT, "delete"),  # type: ignore[arg-type]
        lambda: Decision(CAT, "relabel"),
        lambda: Decision(CAT, "keep", 3),
        lambda: Decision(TASK, "relabel", 3),
        lambda: Decision(CAT, "relabel", 2**63),
        lambda: Decision(CAT, "remove", cause="dull"),  # type: ignore[arg-type]
        lambda: Decision(CAT, "relabel", 3, cause="duplicate"),
        lambda: Decision(CAT, "clear", cause="duplicate"),
    ],
)
def test_invalid_decisions_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UserError):
        make()


def test_empty_groups_and_groups_of_several_reviewers_are_refused(log: DecisionLog) -> None:
    with pytest.raises(UserError, match="decision"):
        log.append([])
    with pytest.raises(ValueError, match="one reviewer"):
        log.append([Decision(CAT, "keep", reviewer="Ann"), Decision(DOG, "keep", reviewer="Bob")])
    assert log.history() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET verdict = 'keep'",
        "DELETE FROM entries",
        "UPDATE groups SET reviewer = 'Eve'",
        "DELETE FROM groups",
        "INSERT OR REPLACE INTO entries SELECT seq, 1, kind, task_id, role, image_id, 'keep', NULL, '', '', '', '' "
        "FROM entries",
        "INSERT OR REPLACE INTO groups VALUES (1, 1, NULL, '', 'Eve', NULL)",
    ],
)
def test_the_database_is_append_only(log: DecisionLog, statement: str) -> None:
    log.append([Decision(CAT, "remove", reviewer="Ann")])
    before = log.history()
    with (
        closing(sqlite3.connect(log.path)) as connection,
        connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(statement)
    assert log.history() == before


WRITER = """
import sys
from pathlib import Path
from core.decisions.log import Decision, DecisionLog, Item
path, name, groups, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for number in range(groups):
    log = DecisionLog(path, 200)  # SQLite does not queue writers: on a slow disk, one may wait for long
    bulk = [Decision(Item("image", image_id=f"{name}-{number}-{i}"), "remove", reviewer=name) for i in range(size)]
    print(log.append(bulk), flush=True)
"""


def writer(path: Path, name: str, groups: int, size: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(groups), str(size)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"  # neither finds a log: both make it
    writers = [writer(path, name, 40, 3) for name in ("Ann", "Bob")]
    acknowledged = [int(line) for process in writers for line in process.communicate()[0].split()]
    assert [process.returncode for process in writers] == [0, 0]
    assert sorted(acknowledged) == list(range(1, 81))
    assert len(DecisionLog(path).current()) == 2 * 40 * 3


def test_threads_share_one_log(log: DecisionLog) -> None:
    log = DecisionLog(log.path, 200)

    def work(name: str) -> None:
        for number in range(20):
            log.append([Decision(Item("image", image_id=f"{name}{number}"), "keep", reviewer=name)])
            log.version()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.current()) == 80


def test_kill_9_loses_no_acknowledged_group_and_leaves_none_incomplete(tmp_path: Path) -> None:
    path, size, acknowledged = tmp_path / "log.sqlite", 500, set()
    for attempt in range(6):
        process = writer(path, f"writer{attempt}", 1_000, size)
        assert process.stdout is not None
        for _ in range(attempt + 1):
            acknowledged.add(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        acknowledged.update(int(line) for line in process.stdout.read().split("\n")[:-1])
        process.stdout.close()
        process.wait()
        sizes: dict[int, int] = {}
        for entry in DecisionLog(path).history():
            sizes[entry.group] = sizes.get(entry.group, 0) + 1
        assert acknowledged <= sizes.keys()
        assert set(sizes.values()) == {size}


def test_a_full_disk_is_reported_and_leaves_the_old_state(log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append([Decision(CAT, "remove", reviewer="Ann")])
    before = log.history()
    connect = sqlite3.connect

    def on_a_full_disk(*args: object, **options: object) -> sqlite3.Connection:
        connection = connect(*args, **options)  # type: ignore[call-overload]
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size instead
        return connection

    bulk = [Decision(Item("image", image_id="x" * 500 + str(n)), "keep", reviewer="Ann") for n in range(500)]
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", on_a_full_disk)
        with pytest.raises(UserError) as refused:
            log.append(bulk)
        assert sqlite_code(refused.value) == sqlite3.SQLITE_FULL
        assert log.history() == before
    log.append(bulk)
    assert len(log.current()) == 501


def test_a_locked_log_is_reported(log: DecisionLog) -> None:
    log = DecisionLog(log.path, busy_seconds=0.05)
    with closing(sqlite3.connect(log.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError) as refused:
            log.append([Decision(CAT, "keep", reviewer="Ann")])
        assert sqlite_code(refused.value) == sqlite3.SQLITE_BUSY
    log.append([Decision(CAT, "keep", reviewer="Ann")])
    assert len(log.history()) == 1


def test_a_damaged_log_is_reported_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    path.write_bytes(b"not a database at all" * 500)
    before = path.read_bytes()
    with pytest.raises(UserError, match=str(path)) as refused:
        DecisionLog(path)
    assert sqlite_code(refused.value) == sqlite3.SQLITE_NOTADB
    assert path.read_bytes() == before


def test_a_log_damaged_in_the_middle_is_reported(log: DecisionLog) -> None:
    log.append([Decision(Item("image", image_id=f"{number}"), "keep", reviewer="Ann") for number in range(2_000)])
    size = log.path.stat().st_size
    with log.path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(random.Random(0).randbytes(size - 4096))
    with pytest.raises(UserError, match=str(log.path)):
        log.current()


def test_a_newer_format_is_refused_and_unchanged(log: DecisionLog) -> None:
    log.append([Decision(CAT, "keep", reviewer="Ann")])
    with closing(sqlite3.connect(log.path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(UserError, match=f"{SCHEMA_VERSION + 1}"):
        DecisionLog(log.path)
    assert len(log.history()) == 1


def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"log\.sqlite"):
        DecisionLog(tmp_path / "file" / "log.sqlite")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=str(tmp_path / "folder")):
        DecisionLog(tmp_path / "folder")
