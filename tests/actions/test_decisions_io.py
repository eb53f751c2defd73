"""Import and export of decisions: errors name the row, nothing is written in part, and exports import unchanged."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from core.actions.export_decisions import decision_table, export_decisions, provenance
from core.actions.import_decisions import import_decisions, plan_import
from core.actions.queue import KIND
from core.decisions.causes import CAUSES
from core.decisions.export_tables import FORMATS, comment_table, corrected_labels
from core.decisions.import_file import _plan
from core.decisions.log import Decision, DecisionLog, Item, LogFileError, LogTransaction, Operation
from core.decisions.table import VERDICTS
from core.decisions.texts import COMMENT_LENGTH, REVIEWER_LENGTH, is_blank
from core.runtime.csv_files import escape_formulas, unescape_formulas
from core.runtime.errors import UserError
from core.runtime.files import read_json
from core.runtime.replacing import replacing_folder
from core.workspace.workspace import Workspace
from tests.actions.reviewed import queue_key, small_workspace, some_items
from tests.properties import examples


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return small_workspace(tmp_path_factory.mktemp("problem"))


class Logged(Workspace):
    """A workspace of a problem in memory, with a separate log."""

    def __init__(self, problem: Workspace, log: Path) -> None:
        super().__init__(problem.folder)
        self.__dict__["decisions"], self._project = DecisionLog(log), problem.project()

    def project(self) -> Any:
        return self._project


@pytest.fixture
def workspace(problem: Workspace, tmp_path: Path) -> Workspace:
    return Logged(problem, tmp_path / "decisions.sqlite")


@pytest.fixture
def items(problem: Workspace) -> dict[str, list[Item]]:
    return some_items(problem)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path, index=False)
    else:
        path.write_text(json.dumps(rows))
    return path


def logged(log: DecisionLog) -> dict[Item, tuple[Any, ...]]:
    return {i: (*e.outcome, e.cause, e.reason, e.reviewer, e.source) for i, e in log.current().items()}


class TestImport:
    @pytest.mark.parametrize("ending", FORMATS)
    def test_every_kind_of_row_is_imported(
        self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path, ending: str
    ) -> None:
        task, image, instance = items["task"][0], items["image"][0], items["instance"][1]
        name = workspace.project().images.class_names[4]
        rows = [
            {"task_id": task.task_id, "verdict": "remove", "cause": "harmful", "reason": "=odd", "reviewer": "ann"},
            {"image_id": image.image_id, "verdict": "relabel", "label": name, "comment": "look"},
            {
                "kind": "instance",
                "task_id": instance.task_id,
                "role": instance.role,
                "image_id": instance.image_id,
                "verdict": "unsure",
            },
            {"image_id": items["image"][1].image_id, "comment": "only a comment"},
        ]
        columns = dict.fromkeys(name for row in rows for name in row)
        path = write(tmp_path / f"some.{ending}", [{name: row.get(name, "") for name in columns} for row in rows])
        made = import_decisions(workspace, path, reviewer="bob")
        assert logged(workspace.decisions) == {
            task: ("remove", None, "harmful", "=odd", "ann", f"import:some.{ending}"),
            image: ("relabel", 4, "label-error", "", "bob", f"import:some.{ending}"),
            instance: ("unsure", None, "label-error", "", "bob", f"import:some.{ending}"),
        }
        assert [(c.item.image_id, c.reviewer, c.text) for c in workspace.decisions.comments()] == [
            (image.image_id, "bob", "look"),
            (items["image"][1].image_id, "bob", "only a comment"),
        ]
        assert (len(made.new), len(made.comments), len(made.sentences)) == (3, 2, 2)
        again = import_decisions(workspace, path, reviewer="bob")
        assert again.is_empty
        assert (again.already_logged, len(again.sentences)) == (3, 1)
        assert len(workspace.decisions.history()) == 3
        workspace.decisions.undo("bob")
        assert set(workspace.decisions.current()) == {task}, "an undo affects one reviewer, all at once"

    @pytest.mark.parametrize(
        ("row", "column", "value", "choices"),
        [
            ({"verdict": "delete"}, "verdict", "'delete'", VERDICTS),
            ({"verdict": ""}, "verdict", "", VERDICTS),
            ({"verdict": "keep", "kind": "picture"}, "kind", "'picture'", ("task", "instance", "image")),
            ({"verdict": "keep", "kind": "task"}, "kind", "'task'", ("task_id",)),
            ({"verdict": "keep", "task_id": "t0"}, "role", "''", ("support", "query")),
            ({"verdict": "keep", "role": "query"}, "role", "'query'", ()),
            ({"verdict": "keep", "image_id": ""}, "image_id", "task_id", ()),
            ({"verdict": "keep", "image_id": "gone"}, "image_id", "'gone'", ()),
            ({"verdict": "relabel"}, "label", "", ("0", "1", "2")),
            ({"verdict": "relabel", "label": "eleven"}, "label", "'eleven'", ("0", "1", "2")),
            ({"verdict": "keep", "label": "3"}, "label", "'3'", ("relabel",)),
            ({"verdict": "relabel", "image_id": "", "task_id": "t0", "label": "3"}, "verdict", "relabel", ()),
            ({"verdict": "keep", "image_id": "FIRST"}, "verdict", "row 1", ()),
            ({"cause": "dull"}, "cause", "'dull'", CAUSES),
            ({"verdict": "relabel", "label": "1", "cause": "duplicate"}, "cause", "relabel", ("label-error",)),
        ],
    )
    def test_an_invalid_row_is_named_and_nothing_is_written(
        self,
        workspace: Workspace,
        items: dict[str, list[Item]],
        tmp_path: Path,
        row: dict[str, str],
        column: str,
        value: str,
        choices: tuple[str, ...],
    ) -> None:
        names = [item.image_id for item in items["image"]]
        columns = ("kind", "task_id", "role", "image_id", "verdict", "label", "cause")
        good = {**dict.fromkeys(columns, ""), "image_id": names[0], "verdict": "remove"}
        bad = {**good, "image_id": names[1], **row}
        bad["image_id"] = names[0] if bad["image_id"] == "FIRST" else bad["image_id"]
        path = write(tmp_path / "some.csv", [good, bad])
        with pytest.raises(UserError) as refused:
            import_decisions(workspace, path, reviewer="ann")
        assert f"some.csv, row 2: {column} " in refused.value.what
        assert value in refused.value.what
        assert refused.value.fix
        assert all(choice in refused.value.fix for choice in choices)
        assert workspace.decisions.history() == []

    def test_files_without_decisions_are_refused(self, workspace: Workspace, tmp_path: Path) -> None:
        for rows, what in (
            ([{"image_id": "a"}], "'verdict'"),
            ([{"verdict": "keep"}], "'task_id'"),
        ):
            with pytest.raises(UserError, match=what):
                plan_import(workspace, write(tmp_path / "some.csv", rows))
        for name, text, what in (
            ("some.csv", "image_id,verdict\n", "some.csv"),
            ("some.json", "{}", "some.json"),
            ("some.json", "[1]", "row 1"),
            ("some.txt", "", ".txt"),
            ("some.parquet", "no", "some.parquet"),
        ):
            (tmp_path / name).write_text(text)
            with pytest.raises(UserError, match=what):
                plan_import(workspace, tmp_path / name)

    def test_a_plan_writes_nothing(self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path) -> None:
        a, b, c, d, e = items["image"][:5]
        workspace.decisions.append([Decision(one, "remove", reviewer="ann") for one in (a, b)])
        workspace.decisions.append([Decision(c, "remove", reviewer="bob"), Decision(d, "keep", reviewer="bob")])
        verdicts = {a: "remove", b: "keep", c: "remove", d: "remove", e: "keep"}
        rows = [{"image_id": one.image_id, "verdict": v, "reviewer": "ann"} for one, v in verdicts.items()]
        path, before = write(tmp_path / "some.csv", rows), workspace.decisions.version()
        plan = plan_import(workspace, path)
        assert workspace.decisions.version() == before
        assert [x.item for x in plan.new] == [e]
        assert [x.item for x in plan.agreeing] == [c]
        assert [(x.item, was.reviewer) for x, was in plan.changing] == [(b, "ann"), (d, "bob")]
        assert (plan.already_logged, plan.conflicts) == (1, 1)
        assert len(plan.sentences) == 5
        import_decisions(workspace, path)
        assert set(workspace.decisions.conflicts()) == {d}
        assert workspace.changes().images == {a.image_id, c.image_id}

    @pytest.mark.parametrize("ending", FORMATS)
    def test_a_file_without_causes_changes_none_and_one_with_causes_does(
        self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path, ending: str
    ) -> None:
        a, b = items["image"][:2]
        workspace.decisions.append([Decision(a, "remove", reviewer="ann", cause="duplicate")])
        rows = [{"image_id": item.image_id, "verdict": "remove", "reviewer": "ann"} for item in (a, b)]
        made = import_decisions(workspace, write(tmp_path / f"old.{ending}", rows))
        assert (made.already_logged, [one.item for one in made.new]) == (1, [b])
        assert [entry.cause for entry in workspace.decisions.current().values()] == ["duplicate", "label-error"]
        rows = [{**rows[0], "cause": "harmful"}, {**rows[1], "cause": "label-error"}]
        made = import_decisions(workspace, write(tmp_path / f"new.{ending}", rows))
        assert (made.already_logged, [was.cause for _, was in made.changing]) == (1, ["duplicate"])
        assert workspace.decisions.current()[a].cause == "harmful"
        assert not workspace.decisions.conflicts()

    def test_classes_stored_as_numbers(
        self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path
    ) -> None:
        image = items["image"][0].image_id
        path = tmp_path / "some.parquet"
        pd.DataFrame({"image_id": [image], "verdict": ["relabel"], "label": [3.0]}).to_parquet(path)
        import_decisions(workspace, path)
        assert [entry.label for entry in workspace.decisions.current().values()] == [3]


BLANKS = [" ", "\t\r\n", "\ufeff", "\u180e", "\u200b", "\u2028", "\x85", "\x1c\x1d\x1e\x1f", "\xa0", "\u3000", "\x00"]
"""Texts without anything to see; Python's ``strip`` and JavaScript's ``trim`` disagree on some."""


def content(log: DecisionLog) -> tuple[Any, ...]:
    return log.version(), log.history(), log.comments()


class TestOneTransaction:
    @pytest.mark.parametrize(
        ("column", "value"),
        [
            *(("comment", blank) for blank in BLANKS),
            ("comment", "x" * (COMMENT_LENGTH + 1)),
            ("comment", "half \ud83d"),
            ("reviewer", "x" * (REVIEWER_LENGTH + 1)),
            ("reviewer", "\udc00"),
            ("reason", "x" * (COMMENT_LENGTH + 1)),
            ("source", "\udfff"),
            ("label", 10**30),
            ("label", "x" * 1_000_000),
            ("verdict", ["keep"]),
        ],
    )
    def test_a_text_that_cannot_be_written_is_named_before_anything_is(
        self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path, column: str, value: Any
    ) -> None:
        names = [item.image_id for item in items["image"][:3]]
        rows = [{"image_id": name, "verdict": "relabel", "label": "1", "comment": "yes"} for name in names]
        path = write(tmp_path / "some.json", [*rows[:2], {**rows[2], column: value}])
        for act in (plan_import, import_decisions):
            with pytest.raises(UserError) as refused:
                act(workspace, path)
            assert f"some.json, row 3: {column} " in refused.value.what
            assert len(str(refused.value)) < 400
        assert content(workspace.decisions) == (0, [], [])

    def test_an_import_is_one_transaction_and_a_dry_run_never_locks(
        self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [
            {"image_id": item.image_id, "verdict": "keep", "reviewer": f"r{n % 3}", "comment": f"{n}"}
            for n, item in enumerate(items["image"])
        ]
        path, connect, statements = write(tmp_path / "some.json", rows), sqlite3.connect, []
        workspace.decisions.version()

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(statements.append)
            return connection

        monkeypatch.setattr(sqlite3, "connect", traced)
        for act, expected in ((plan_import, ["BEGIN"]), (import_decisions, ["BEGIN IMMEDIATE", "COMMIT"])):
            statements.clear()
            act(workspace, path)
            kinds = [statement for statement in statements if statement.startswith(("BEGIN", "COMMIT", "ROLLBACK"))]
            assert kinds == expected
        assert len(workspace.decisions.comments()) == len(workspace.decisions.current()) == len(rows)

    def test_no_decision_comes_between_the_plan_and_what_is_written(
        self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, plan = write(tmp_path / "some.json", [{"image_id": items["image"][0].image_id, "verdict": "keep"}]), _plan
        other, refused = DecisionLog(workspace.decisions.path, busy_seconds=0.01), []

        def planned(*arguments: Any) -> Any:
            made = plan(*arguments)
            with pytest.raises(LogFileError) as error:
                other.append([Decision(items["image"][0], "remove", reviewer="ben")])
            refused.append(error.value.code)
            return made

        monkeypatch.setattr("core.decisions.import_file._plan", planned)
        assert len(import_decisions(workspace, path).new) == 1
        assert refused == [sqlite3.SQLITE_BUSY]

    def test_others_decide_during_a_dry_run(
        self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, plan = write(tmp_path / "some.json", [{"image_id": items["image"][0].image_id, "verdict": "keep"}]), _plan
        log = workspace.decisions

        def planned(*arguments: Any) -> Any:
            for others in (log, DecisionLog(log.path, busy_seconds=0.01)):  # of this process, and of another one
                others.append([Decision(items["image"][0], "remove", reviewer="ben")])
                assert len(others.current()) == 1
            return plan(*arguments)

        monkeypatch.setattr("core.decisions.import_file._plan", planned)
        assert len(plan_import(workspace, path).new) == 1  # as the log was when it began
        assert [entry.by for entry in log.history()] == ["ben", "ben"]
        assert log.current()[items["image"][0]].verdict == "remove"

    def test_an_error_at_the_last_comment_leaves_nothing(
        self, workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [{"image_id": item.image_id, "verdict": "keep", "comment": item.image_id} for item in items["image"][:9]]
        path, comment = write(tmp_path / "some.json", rows), LogTransaction.comment

        def failing(log: LogTransaction, item: Item, *more: str) -> Any:
            if item == items["image"][8]:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE"
                raise error
            return comment(log, item, *more)

        with monkeypatch.context() as patch:
            patch.setattr(LogTransaction, "comment", failing)
            for act in (plan_import, import_decisions):
                with pytest.raises(LogFileError):
                    act(workspace, path)
        assert content(workspace.decisions) == (0, [], [])
        assert len(import_decisions(workspace, path).comments) == 9

    @examples(40, phases=(Phase.explicit, Phase.generate))
    @given(data=st.data())
    def test_whatever_the_file_all_is_written_or_nothing_and_the_dry_run_says_which(
        self, problem: Workspace, data: st.DataObject
    ) -> None:
        pool = some_items(problem)
        names = [item.image_id for item in pool["image"][:4]]
        cells = st.one_of(
            st.text(st.characters(exclude_categories=()), max_size=5),
            st.sampled_from(
                [*BLANKS, "ann", "x" * 300, "ann/2", "\x00", "=1", None, 3, 2.5, 1e300, True, [], {}, 2**70]
            ),
        )
        usual = {
            "image_id": st.sampled_from(names),
            "verdict": st.sampled_from(["keep", "remove", "unsure", "relabel", ""]),
            "label": st.sampled_from(["", "", "1", 2]),
            "cause": st.sampled_from(["", "", "duplicate"]),
            "reviewer": st.sampled_from(["", "ann", "ben"]),
            "comment": st.sampled_from(["", "hm", "why"]),
        }
        rows = data.draw(st.lists(st.fixed_dictionaries(usual), min_size=1, max_size=5))
        for _ in range(data.draw(st.integers(0, 2))):
            row = data.draw(st.sampled_from(rows))
            row[data.draw(st.sampled_from([*usual, "task_id", "role", "kind", "reason", "source"]))] = data.draw(cells)
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            workspace = Logged(problem, Path(folder) / "decisions.sqlite")
            workspace.decisions.append([Decision(pool["image"][0], "remove", reviewer="ann")])
            before, path = content(workspace.decisions), write(Path(folder) / "some.json", rows)
            told = []
            for act in (plan_import, import_decisions):
                assert content(workspace.decisions) == before
                try:
                    told.append(act(workspace, path))
                except UserError as error:
                    told.append((error.what, error.fix))
            assert told[0] == told[1]
            if isinstance(told[1], tuple):
                assert content(workspace.decisions) == before
                return
            _, history, comments = content(workspace.decisions)
            written = [(e.item, e.outcome, e.cause, e.reason, e.reviewer, e.source) for e in history[len(before[1]) :]]
            planned = [(d.item, d.outcome, d.cause, d.reason, d.reviewer, d.source) for d in told[1].decisions]
            assert sorted(written, key=repr) == sorted(planned, key=repr)
            assert {(c.item, c.reviewer, c.text) for c in comments} == {
                (c.item, c.reviewer, c.text) for c in told[1].comments
            }
            again = import_decisions(workspace, path)
            assert again.is_empty or again.changing


NASTY = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["=1+1", "'=1", "''@x", "\t", "\r\n", 'a"b,c', "NA", "007", "true", "<script>", "\x00", "-", "#N/A"]
    ),
)


class TestRoundTrip:
    @examples(8, phases=(Phase.explicit, Phase.generate))  # shrinking takes minutes with a disk in it
    @given(data=st.data())
    def test_an_export_imports_unchanged(self, problem: Workspace, data: st.DataObject) -> None:
        folder = problem.folder / "round"
        shutil.rmtree(folder, ignore_errors=True)
        one = Logged(problem, folder / "one.sqlite")
        pool = [item for some in some_items(problem).values() for item in some[:3]]
        reviewers = [f"r{name}" for name in data.draw(st.lists(NASTY, min_size=1, max_size=3, unique=True))]
        for _ in range(data.draw(st.integers(1, 5))):
            who = data.draw(st.sampled_from(reviewers))
            some = [self.decision(data, item, who) for item in data.draw(st.lists(st.sampled_from(pool), min_size=1))]
            saw = one.decisions.version() if data.draw(st.booleans()) else None
            one.decisions.submit([Operation("decide", who, decisions=tuple(some), saw=saw)])
            if data.draw(st.booleans()):
                one.decisions.undo(who)
            text = data.draw(NASTY)
            if not is_blank(text):
                one.decisions.comment(pool[0], who, text)
        out = export_decisions(one, folder / "out")
        comments = {(c.item, c.reviewer, c.text) for c in one.decisions.comments()}
        for ending in FORMATS:
            two = Logged(problem, folder / f"{ending}.sqlite")
            files = ["decisions"] if ending == "json" else ["decisions", "comments"]
            for name in files:
                table = decision_table(one) if name == "decisions" else comment_table(one.decisions)
                if len(table) and not (ending == "json" and decision_table(one).empty):
                    import_decisions(two, out / f"{name}.{ending}", reviewer="nobody")
            assert logged(two.decisions) == logged(one.decisions)
            assert set(two.decisions.conflicts()) == set(one.decisions.conflicts())
            assert two.changes() == one.changes()
            if not (ending == "json" and decision_table(one).empty):
                assert {(c.item, c.reviewer, c.text) for c in two.decisions.comments()} == comments

    @staticmethod
    def decision(data: st.DataObject, item: Item, who: str) -> Decision:
        verdicts = ["keep", "remove", "unsure", "clear", *(["relabel"] if item.kind != "task" else [])]
        verdict = data.draw(st.sampled_from(verdicts))
        label = data.draw(st.integers(0, 9)) if verdict == "relabel" else None
        cause = data.draw(st.sampled_from(CAUSES)) if verdict not in ("relabel", "clear") else ""
        return Decision(item, verdict, label, data.draw(NASTY), who, f"s{data.draw(NASTY)}", cause)

    @given(st.lists(NASTY, min_size=1))
    def test_escaped_formulas_are_unescaped(self, values: list[str]) -> None:
        table = pd.DataFrame({"text": values}, dtype=object)
        safe = escape_formulas(table)
        numbers = safe["text"].str.fullmatch(r"[+-]([0-9]+\.?[0-9]*|\.[0-9]+)")
        assert not (safe["text"].str.match(r"[=+\-@\t\r\n]") & ~numbers).any()
        assert unescape_formulas(safe)["text"].tolist() == values


class TestExport:
    @pytest.fixture
    def decided(self, workspace: Workspace, items: dict[str, list[Item]]) -> Workspace:
        a, b, c = items["image"][:3]
        row = items["instance"][5]
        log = workspace.decisions
        log.append(
            [Decision(a, "relabel", 7, "=looks like a 7", "ann", "queue-1"), Decision(b, "remove", reviewer="ann")]
        )
        log.append([Decision(b, "keep", reviewer="bob"), Decision(row, "relabel", 2, reviewer="bob")])
        log.append([Decision(c, "keep", reviewer="ann")])
        log.comment(a, "bob", "@all: yes")
        return workspace

    def test_tables_of_an_export(self, decided: Workspace, items: dict[str, list[Item]], tmp_path: Path) -> None:
        out = export_decisions(decided, tmp_path / "out")
        assert {path.name for path in out.iterdir()} == {
            "decisions.json",
            "provenance.json",
            *(
                f"{t}.{e}"
                for t in ("decisions", "conflicts", "corrected-labels", "comments")
                for e in ("csv", "parquet")
            ),
        }
        table = pd.read_parquet(out / "decisions.parquet")
        a, b, c = (item.image_id for item in items["image"][:3])
        of = table.set_index("image_id")
        assert of.loc[a, "reason"] == "=looks like a 7"
        assert (of.loc[a, "label"], of.loc[a, "standing"], of.loc[a, "source"]) == ("7", "counts", "queue-1")
        assert of.loc[b, "standing"].tolist() == ["conflict", "conflict"]
        assert of.loc[b, "reviewer"].tolist() == ["ann", "bob"]
        assert table["suspicion"].isna().all(), "there is no queue"
        assert pd.read_csv(out / "decisions.csv").set_index("image_id").loc[a, "reason"] == "'=looks like a 7"
        assert pd.read_csv(out / "comments.csv")["comment"].tolist() == ["'@all: yes"]
        assert pd.read_parquet(out / "conflicts.parquet")["image_id"].tolist() == [b, b]
        given = decided.project().tasks.train.rows.set_index("image_id").loc[a, "class"]
        labels = corrected_labels(decision_table(decided))
        assert labels[["image_id", "corrected", "task_id"]].values.tolist() == [
            [a, "7", ""],
            [items["instance"][5].image_id, "2", items["instance"][5].task_id],
        ]
        assert labels["given"][0] in ([given] if isinstance(given, str) else list(given))
        assert c in table["image_id"].tolist()

    def test_provenance_of_an_export(self, decided: Workspace, tmp_path: Path) -> None:
        about = read_json(export_decisions(decided, tmp_path / "out", formats=("json",)) / "provenance.json")
        assert about["hashes"] == {**decided.project().hashes, "changes": decided.changes().hash}
        assert about["counts"] == {"keep": 2, "relabel": 2}
        assert about["conflicts"] == 1
        assert [(r["reviewer"], r["decisions"]) for r in about["reviewers"]] == [("ann", 3), ("bob", 2)]
        assert about["agreement"][0]["reviewers"] == ["ann", "bob"]
        assert about["queue"] is None
        assert read_json(tmp_path / "out" / "decisions.json")["provenance"] == about

    def test_scores_of_the_queue_are_exported(self, decided: Workspace, items: dict[str, list[Item]]) -> None:
        a = items["image"][0].image_id
        table = pd.DataFrame(
            {"rank": [0], "level": ["image"], "task_id": [""], "role": [""], "image_id": [a], "class": ["0"]}
        ).assign(suspicion=2.5, probability=0.75, suggested="7", suggested_probability=0.5, second="1", occurrences=1)

        def work(run: Any) -> None:
            run.write_table("items.parquet", table)
            run.write_json("summary.json", {"level": "image", "items": 1, "ranking": "loss", "calibrated": True})

        run = decided.runs.get_or_compute(KIND, queue_key(decided), work)
        try:
            shown = decision_table(decided).set_index("image_id").loc[a]
            assert (shown["queue"], shown["rank"], shown["suspicion"], shown["probability"]) == (run.id, 0, 2.5, 0.75)
            assert provenance(decided)["queue"]["ranking"] == "loss"
        finally:
            shutil.rmtree(run.folder)

    def test_a_folder_with_other_files_is_refused(self, decided: Workspace, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("dear")
        with pytest.raises(UserError, match=str(tmp_path / "mine")):
            export_decisions(decided, tmp_path / "mine")
        with pytest.raises(UserError, match=r"thesis\.txt"):
            export_decisions(decided, tmp_path / "mine" / "thesis.txt")
        assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear"
        with pytest.raises(UserError, match="'xls'"):
            export_decisions(decided, tmp_path / "new", formats=("xls",))

    @pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EACCES])
    def test_a_full_disk_keeps_the_older_export(
        self, decided: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
    ) -> None:
        out = export_decisions(decided, tmp_path / "out")
        before = {path.name: path.read_bytes() for path in out.iterdir()}

        def full(self: pd.DataFrame, *args: Any, **named: Any) -> None:
            raise OSError(fault, "no")

        monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
        with pytest.raises(UserError) as refused:
            export_decisions(decided, out)
        assert isinstance(refused.value.__cause__, OSError)
        assert refused.value.__cause__.errno == fault
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]


def test_replacing_a_folder_succeeds_or_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    for text in ("one", "two"):
        with replacing_folder(place, {"file"}) as folder:
            (folder / "file").write_text(text)
        assert (place / "file").read_text() == text
        (place / "mine.txt").write_text("kept")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if (self / "file").exists() and (self / "file").read_text() == "three":
            raise OSError(errno.EACCES, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match=str(place)), replacing_folder(place, {"file"}) as folder:
        (folder / "file").write_text("three")
    assert (place / "file").read_text() == "two"
    assert (place / "mine.txt").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@pytest.mark.parametrize("content", [5, "ab", None, {"a": 1}, [1], [[]]], ids=repr)
@pytest.mark.parametrize("name", ["decisions", "comments"])
def test_an_object_whose_lists_are_none_is_refused(
    name: str, content: object, workspace: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "decisions.json"
    file.write_text(json.dumps({"decisions": [], "comments": []} | {name: content}))
    with pytest.raises(UserError):
        plan_import(workspace, file)
    assert not workspace.decisions.history()


def test_a_comment_that_a_file_has_twice_counts_once(
    workspace: Workspace, items: dict[str, list[Item]], tmp_path: Path
) -> None:
    file = tmp_path / "decisions.json"
    row = {"image_id": items["image"][0].image_id, "comment": "blurred", "reviewer": "ann"}
    file.write_text(json.dumps([row, row]))
    assert len(plan_import(workspace, file).comments) == len(import_decisions(workspace, file).comments) == 1
    assert len(workspace.decisions.comments()) == 1
