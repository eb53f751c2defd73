"""The decision log with several reviewers: conflicts, repeated operations, older files and disk errors."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from core.decisions.database import SCHEMA_VERSION
from core.decisions.log import Decision, DecisionLog, Entry, Item, Operation, Result, Verdict
from core.runtime.errors import UserError
from tests.decisions.sqlite_errors import sqlite_code

ROOT = Path(__file__).parents[2]
CAT = Item("image", image_id="cat.png")
DOG = Item("image", image_id="dog.png")


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(tmp_path / "decisions.sqlite")


def decide(
    log: DecisionLog, reviewer: str, verdict: Verdict, saw: int | None = None, *, label: int | None = None
) -> None:
    log.submit([Operation("decide", reviewer, "", (Decision(CAT, verdict, label),), saw)])


def in_conflict(log: DecisionLog) -> list[str]:
    """Return the reviewers in conflict about the cat."""
    assert log.conflicts() == DecisionLog(log.path).conflicts()  # read piece by piece as at once
    return [entry.reviewer for entry in log.conflicts().get(CAT, ())]


def test_a_decision_made_with_the_other_on_screen_is_no_conflict(log: DecisionLog) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Bob", "keep", saw=1)
    assert in_conflict(log) == []
    assert log.current()[CAT].saw == 1


def test_a_decision_made_on_an_older_opinion_of_the_other_is_a_conflict(log: DecisionLog) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Ann", "relabel", label=1)
    decide(log, "Bob", "keep", saw=1)  # Ann still wanted to remove it
    assert in_conflict(log) == ["Ann", "Bob"]


@pytest.mark.parametrize("saw", [None, 0])
def test_a_decision_made_without_the_other_on_screen_is_a_conflict(log: DecisionLog, saw: int | None) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Bob", "keep", saw)
    assert in_conflict(log) == ["Ann", "Bob"]
    assert log.current()[CAT].verdict == "keep"


def test_different_new_labels_conflict_and_equal_ones_do_not(log: DecisionLog) -> None:
    decide(log, "Ann", "relabel", label=1)
    decide(log, "Bob", "relabel", label=1)
    assert in_conflict(log) == []
    decide(log, "Bob", "relabel", label=2)
    assert in_conflict(log) == ["Ann", "Bob"]


def test_unsure_neither_contradicts_nor_resolves(log: DecisionLog) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Cid", "unsure")
    assert in_conflict(log) == []
    decide(log, "Bob", "keep")
    decide(log, "Cid", "unsure", saw=3)
    assert in_conflict(log) == ["Ann", "Bob"]


def test_a_decision_with_all_on_screen_resolves_and_its_undo_reopens(log: DecisionLog) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Bob", "keep")
    decide(log, "Cid", "keep", saw=1)
    assert in_conflict(log) == []  # he saw what Ann says, and agrees with Bob
    decide(log, "Cid", "remove", saw=1)
    assert in_conflict(log) == ["Ann", "Bob", "Cid"]  # he has not seen Bob's
    decide(log, "Cid", "remove", saw=4)
    assert in_conflict(log) == []
    log.undo("Cid")
    assert in_conflict(log) == ["Ann", "Bob", "Cid"]
    log.redo("Cid")
    assert in_conflict(log) == []
    decide(log, "Cid", "clear", saw=7)
    assert in_conflict(log) == ["Ann", "Bob"]


@pytest.mark.parametrize("way", ["undo", "clear", "agree"])
def test_withdrawing_a_decision_resolves_a_conflict(log: DecisionLog, way: str) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Bob", "keep")
    if way == "undo":
        log.undo("Ann")
    else:
        decide(log, "Ann", "clear" if way == "clear" else "keep")
    assert in_conflict(log) == []


def test_a_decision_that_was_undone_at_the_time_was_not_seen(log: DecisionLog) -> None:
    decide(log, "Ann", "remove")
    log.undo("Ann")
    decide(log, "Bob", "keep", saw=2)
    assert in_conflict(log) == []
    log.redo("Ann")
    assert in_conflict(log) == ["Ann", "Bob"]
    assert log.current()[CAT].reviewer == "Bob"


def test_repeating_a_decision_does_not_make_it_unseen(log: DecisionLog) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Ann", "remove")
    decide(log, "Bob", "keep", saw=1)
    assert in_conflict(log) == []


def test_saw_is_limited_to_the_newest_version(log: DecisionLog) -> None:
    decide(log, "Bob", "keep", saw=1_000)
    decide(log, "Ann", "remove", saw=1)
    assert in_conflict(log) == []
    assert log.decisions_of("Bob")[CAT].saw == 0


def test_own_decisions_are_per_reviewer(log: DecisionLog) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Bob", "keep", saw=1)
    log.append([Decision(DOG, "unsure", reviewer="Ann")])
    assert {item: entry.verdict for item, entry in log.decisions_of("Ann").items()} == {CAT: "remove", DOG: "unsure"}
    assert {item: entry.verdict for item, entry in log.decisions_of("Bob").items()} == {CAT: "keep"}
    assert log.decisions_of("Cid") == {}
    log.undo("Ann")
    log.undo("Ann")
    assert log.decisions_of("Ann") == {}


def test_writes_of_another_process_are_read(log: DecisionLog) -> None:
    decide(log, "Ann", "remove")
    assert in_conflict(log) == []
    other = DecisionLog(log.path)
    decide(other, "Bob", "keep")
    assert in_conflict(log) == ["Ann", "Bob"]
    other.undo("Bob")
    assert in_conflict(log) == []
    assert log.decisions_of("Bob") == {}


def test_a_replaced_log_file_is_read_again(log: DecisionLog, tmp_path: Path) -> None:
    decide(log, "Ann", "remove")
    decide(log, "Ann", "keep")
    backup = DecisionLog(tmp_path / "backup.sqlite")
    decide(backup, "Bob", "unsure")
    assert log.current()[CAT].verdict == "keep"
    backup.path.replace(log.path)
    assert log.current()[CAT].verdict == "unsure"
    assert log.decisions_of("Ann") == {}


def test_a_repeated_operation_is_applied_once(log: DecisionLog) -> None:
    both = (Decision(CAT, "remove"), Decision(DOG, "keep"))
    operations = [Operation("decide", "Ann", "a", both), Operation("undo", "Ann", "b"), Operation("redo", "Ann", "c")]
    first = log.submit(operations)
    history = log.history()
    assert log.submit(operations[1:]) == first[1:]
    assert [result.group for result in first] == [1, 2, 3]
    assert {entry.item for entry in first[1].reversed_entries} == {CAT, DOG}
    log.append([Decision(CAT, "keep", reviewer="Bob")])
    assert log.submit([operations[0], *operations]) == [first[0], *first]  # what came since changes no answer
    assert log.history()[: len(history)] == history
    assert log.version() == 4


def test_a_repeated_undo_of_nothing_has_no_effect(log: DecisionLog) -> None:
    undo = Operation("undo", "Ann", "a")
    assert log.submit([undo]) == [Result()]
    decide(log, "Ann", "remove")
    assert log.submit([undo]) == [Result()]
    assert log.current()[CAT].verdict == "remove"


def test_operations_of_one_call_are_atomic(log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Operation("decide", "Ann", "a", (Decision(CAT, "remove"),))
    bad = Operation("decide", "Ann", "b", (Decision(DOG, "keep", None, source=None, cause="other"),))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        log.submit([good, bad])
    assert log.history() == []
    assert log.submit([]) == []
    assert log.submit([good])[0].group == 1


def test_invalid_operations_are_refused() -> None:
    with pytest.raises(UserError):
        Operation("decide", "Ann")
    with pytest.raises(UserError, match="reviewer"):
        Operation("decide", " ", decisions=(Decision(CAT, "keep"),))
    with pytest.raises(UserError, match="drop"):
        Operation("drop", "Ann")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no decisions"):
        Operation("undo", "Ann", decisions=(Decision(CAT, "keep"),))
    with pytest.raises(ValueError, match="one reviewer"):
        Operation("decide", "Ann", decisions=(Decision(CAT, "keep", reviewer="Bob"),))


def test_restoring_a_snapshot_resolves_conflicts(log: DecisionLog) -> None:
    decide(log, "Ann", "relabel", label=1)
    log.snapshot("before lunch", "Ann", "ünser ‘note’")
    decide(log, "Ann", "remove")
    decide(log, "Bob", "keep")
    log.append([Decision(DOG, "remove", reviewer="Bob")])
    difference = log.difference("before lunch")
    assert {item: [e and e.verdict for e in pair] for item, pair in difference.items()} == {
        CAT: ["relabel", "keep"],
        DOG: [None, "remove"],
    }
    log.restore("before lunch", "Cid")
    assert {item: (e.outcome, e.reviewer, e.source) for item, e in log.current().items()} == {
        CAT: (("relabel", 1), "Cid", "snapshot before lunch")
    }
    assert in_conflict(log) == []
    assert log.difference("before lunch") == {}
    assert log.restore("before lunch", "Cid") == Result()
    log.undo("Cid")
    assert in_conflict(log) == ["Ann", "Bob"]
    (snapshot,) = log.snapshots()
    assert (snapshot.name, snapshot.reviewer, snapshot.note, snapshot.seq) == ("before lunch", "Ann", "ünser ‘note’", 1)


def test_names_of_snapshots(log: DecisionLog) -> None:
    with pytest.raises(UserError, match="“a”"):
        log.state("a")
    log.snapshot("a", "Ann")
    assert log.state("a") == {}
    with pytest.raises(UserError, match="“a”"):
        log.snapshot("a", "Bob")
    with pytest.raises(UserError):
        log.snapshot("  ", "Bob")
    with pytest.raises(UserError, match="reviewer"):
        log.snapshot("c", " ")
    with pytest.raises(UserError, match=r"“b”.* a\b"):
        log.restore("b", "Ann")
    assert len(log.snapshots()) == 1


def test_an_empty_comment_is_refused(log: DecisionLog) -> None:
    with pytest.raises(UserError):
        log.comment(CAT, "Ann", " \n")
    with pytest.raises(UserError, match="reviewer"):
        log.comment(CAT, " ", "half a seven")
    assert log.comments() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE comments SET text = 'I agree'",
        "DELETE FROM comments",
        "INSERT OR REPLACE INTO comments SELECT * FROM comments",
        "UPDATE snapshots SET seq = 0",
        "DELETE FROM snapshots",
        "INSERT OR REPLACE INTO snapshots SELECT * FROM snapshots",
        "INSERT OR REPLACE INTO snapshots SELECT 9, name, '', '', '', 0, 0 FROM snapshots",
        "UPDATE tokens SET id = 0",
        "DELETE FROM tokens",
        "INSERT OR REPLACE INTO tokens SELECT kind, token, 0 FROM tokens",
    ],
)
def test_comments_snapshots_and_tokens_are_append_only(log: DecisionLog, statement: str) -> None:
    log.submit([Operation("decide", "Ann", "a", (Decision(CAT, "remove"),))])
    log.comment(CAT, "Ann", "blurred", "b")
    log.snapshot("c", "Ann", "", "c")
    with (
        closing(sqlite3.connect(log.path)) as connection,
        connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(statement)


VERSION_1 = """
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, root INTEGER NOT NULL, undoes INTEGER, at TEXT NOT NULL, reviewer TEXT NOT NULL);
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, group_id INTEGER NOT NULL,
    kind TEXT NOT NULL, task_id TEXT NOT NULL, role TEXT NOT NULL, image_id TEXT NOT NULL,
    verdict TEXT NOT NULL, label INTEGER, reason TEXT NOT NULL, reviewer TEXT NOT NULL, source TEXT NOT NULL);
CREATE INDEX groups_by_reviewer ON groups (reviewer, root);
CREATE INDEX groups_by_root ON groups (root);
CREATE INDEX entries_by_group ON entries (group_id);
CREATE INDEX entries_by_item ON entries (kind, task_id, role, image_id);
CREATE TRIGGER groups_UPDATE BEFORE UPDATE ON groups
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER groups_DELETE BEFORE DELETE ON groups
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER groups_INSERT BEFORE INSERT ON groups WHEN EXISTS (SELECT 1 FROM groups WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER entries_UPDATE BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER entries_DELETE BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER entries_INSERT BEFORE INSERT ON entries WHEN EXISTS (SELECT 1 FROM entries WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
INSERT INTO groups VALUES (1, 1, NULL, '2026-01-01T00:00:00.000+00:00', 'Ann');
INSERT INTO entries VALUES (1, 1, 'image', '', '', 'cat.png', 'relabel', 3, 'a lynx', 'Ann', 'rank-1');
INSERT INTO entries VALUES (2, 1, 'image', '', '', 'dog.png', 'remove', NULL, '', 'Ann', 'rank-1');
INSERT INTO groups VALUES (2, 2, NULL, '2026-01-01T00:00:01.000+00:00', 'Bob');
INSERT INTO entries VALUES (3, 2, 'image', '', '', 'cat.png', 'keep', NULL, '', 'Bob', '');
INSERT INTO groups VALUES (3, 2, 2, '2026-01-01T00:00:02.000+00:00', 'Bob');
INSERT INTO entries VALUES (4, 3, 'image', '', '', 'cat.png', 'relabel', 3, 'a lynx', 'Ann', 'rank-1');
PRAGMA user_version = 1;
"""


def first_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)


def test_a_log_of_the_first_version_is_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    first_version(path)
    log = DecisionLog(path)
    time = "2026-01-01T00:00:02.000+00:00"
    lynx = Entry(CAT, "relabel", 3, "a lynx", "Ann", "rank-1", seq=4, at=time, group=3, by="Bob", undoes=2)
    assert log.current()[CAT] == lynx
    assert [entry.cause for entry in log.current().values()] == ["harmful", "label-error"]
    assert [entry.seq for entry in log.history()] == [1, 2, 3, 4]
    log.redo("Bob")
    assert in_conflict(log) == ["Ann", "Bob"]
    log.undo("Ann")
    assert {item: entry.verdict for item, entry in log.current().items()} == {CAT: "keep"}
    decide(log, "Ann", "remove", saw=log.version())
    assert in_conflict(log) == []
    log.snapshot("a", "Ann")
    assert log.comment(CAT, "Ann", "hm").id == 1


def test_old_and_new_logs_have_the_same_tables(log: DecisionLog, tmp_path: Path) -> None:
    first_version(tmp_path / "old.sqlite")
    with closing(sqlite3.connect(DecisionLog(tmp_path / "old.sqlite").path)) as old:
        with closing(sqlite3.connect(log.path)) as new:
            query = "SELECT type, name, tbl_name, replace(replace(sql, char(10), ' '), '  ', ' ') FROM sqlite_master"
            assert set(old.execute(query)) == set(new.execute(query))
        assert old.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_an_upgrade_that_fails_leaves_the_old_log(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    first_version(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE snapshots (mine)")  # what the upgrade makes last is in its way
    with pytest.raises(UserError, match=str(path)):
        DecisionLog(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM pragma_table_info('groups')").fetchone() == (5,)
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (4,)


def test_a_locked_log_can_be_read_and_refused_operations_can_be_repeated(log: DecisionLog) -> None:
    decide(log, "Ann", "keep")
    log = DecisionLog(log.path, busy_seconds=0.05)
    operations = [Operation("decide", "Ann", f"{n}", (Decision(CAT, "remove"),)) for n in range(3)]
    with closing(sqlite3.connect(log.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for attempt in (
            lambda: log.submit(operations),
            lambda: log.undo("Ann"),
            lambda: log.comment(CAT, "Ann", "hm"),
            lambda: log.snapshot("a", "Ann"),
        ):
            with pytest.raises(UserError) as refused:
                attempt()
            assert sqlite_code(refused.value) == sqlite3.SQLITE_BUSY
        DecisionLog(log.path, busy_seconds=0.05)
        assert log.current()[CAT].verdict == "keep"
        assert log.decisions_of("Ann").keys() == {CAT}
        assert (log.change_counter(), log.comments(), log.snapshots()) == (1, [], [])
    log.submit(operations)
    log.submit(operations)
    assert log.version() == 4


def test_operations_refused_by_a_full_disk_can_be_repeated(log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(log, "Ann", "keep")
    connect = sqlite3.connect

    def on_a_full_disk(*args: object, **options: object) -> sqlite3.Connection:
        connection = connect(*args, **options)  # type: ignore[call-overload]
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size instead
        return connection

    bulk = tuple(Decision(Item("image", image_id="x" * 500 + str(number)), "keep") for number in range(200))
    operations = [Operation("undo", "Ann", "a"), Operation("decide", "Ann", "b", bulk)]
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", on_a_full_disk)
        with pytest.raises(UserError) as refused:
            log.submit(operations)
        assert sqlite_code(refused.value) == sqlite3.SQLITE_FULL
        assert log.current()[CAT].verdict == "keep"
    first = log.submit(operations)
    assert log.submit(operations) == first
    assert len(log.current()) == 200
