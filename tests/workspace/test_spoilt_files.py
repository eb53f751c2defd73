"""Every file of a home, spoilt in every way that we know: the file is named, and everything else is still there."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.actions.decide import mark
from core.actions.duplicates import duplicates
from core.actions.export import export
from core.cli.app import program
from core.review.filters import Filters
from core.review.saved_views import save_view
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress
from core.runtime.stored import Count, Finite, Text, check_table, read_stored, read_table
from core.tasks.changes import Changes
from core.workspace.demos import open_demo
from core.workspace.workspace import Workspace
from tests.conftest import MakeOnce
from tests.workspace.spoilt import Seen, Spoiling, files_of, read_everything, restored, spoilings_of

DEMO = "demo-noisy-tasks"
LONGEST = 1000
"""Characters of an error: a few lines on the screen."""
UNNAMED = {"progress.json"}
"""Files without which nothing is lost."""


def make_home(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(folder))
        workspace = open_demo(DEMO)
        for run in workspace.runs.folder.iterdir():
            if run.name.startswith(("edit-retrain", "edit-newton")):
                shutil.rmtree(run)
        mark(workspace, tasks=["t000"], reviewer="a")
        workspace.sets.save("mine", Changes.named(tasks=["t001"]), who="a")
        save_view(workspace.folder, "one", Filters(find="x"))
        save_view(workspace.folder, "two", Filters(state=("undecided",)))
        export(workspace, workspace.folder / "exports" / "cleaned")
        duplicates(workspace, Progress())
        for number, code in enumerate((0, 1), 1):
            job = workspace.jobs.folder / f"20260101-00000{number}-000000-aaaa"
            job.mkdir(parents=True)
            described = {
                "title": "Rank",
                "args": ["rank"],
                "started": "2026-01-01T00:00:00.000+00:00",
                "sequence": number,
            }
            (job / "job.json").write_text(json.dumps(described))
            (job / "exit.json").write_text(json.dumps({"code": code}))
            state = {"stage": "scores", "done": 1, "total": 2, "elapsed": 1.0, "left": 1.0, "note": ""}
            (job / "progress.json").write_text(json.dumps(state))
            (job / "stderr").write_text("The reason.\n")


@pytest.fixture
def workspace(make_once: MakeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(make_once("spoilt", make_home), tmp_path / "home")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home" / DEMO


def all_spoilings(workspace: Path) -> list[Spoiling]:
    """Return every way for every file; ways that depend on the fields, for one file of each kind."""
    cases, kinds = [], set()
    for file in files_of(workspace):
        in_run = file.parent.parent.name in ("runs", "jobs")
        kind = (file.parent.name.rpartition("-")[0] if in_run else file.parent.name, "" if not in_run else file.name)
        kind = kind if in_run or file.parent.name in ("sets", "views") else (file.parent.name, file.name)
        cases += [one for one in spoilings_of(file) if one.names_file or kind not in kinds]
        kinds.add(kind)
    return cases


def check(workspace: Path, whole: Seen, case: Spoiling) -> str:
    """Spoil one file and read everything; return whether it was ``named`` or its change ``accepted``."""
    run = next((folder for folder in case.file.parents if folder.parent.name == "runs"), workspace)
    with restored(case.file, case):
        seen = read_everything(workspace, run)  # anything but a UserError ends the test
    usual = {str(error) for error in whole.errors}
    errors = [text for error in seen.errors if (text := str(error)) not in usual]
    is_named = any(case.file.name in text for text in errors)
    assert is_named or not errors, f"another file is blamed: {errors}"
    assert is_named or not case.names_file or case.file.name in UNNAMED
    assert all(len(text) < LONGEST for text in errors)
    own = {case.file.stem, *(folder.name for folder in case.file.parents)}
    assert case.file.name == "workspace.json" or whole.listed - seen.listed <= own
    return "named" if is_named else "accepted"


def check_all(workspace: Path, cases: list[Spoiling]) -> Counter[str]:
    whole, counts = read_everything(workspace), Counter[str]()
    assert len(whole.listed) > 15
    for case in cases:
        try:
            counts[check(workspace, whole, case)] += 1
        except Exception as error:
            raise AssertionError(f"{case.file.relative_to(workspace)}, {case.name}") from error
    assert read_everything(workspace).listed == whole.listed
    return counts


def test_a_spoilt_file_is_named_and_the_rest_is_there(workspace: Path) -> None:
    cases = all_spoilings(workspace)
    total = [one for one in cases if one.names_file]
    counts = check_all(workspace, random.Random(0).sample(total, 12) + random.Random(1).sample(cases, 10))
    assert counts["named"] >= 12


@pytest.mark.slow
def test_every_spoilt_file_is_named_and_the_rest_is_there(workspace: Path) -> None:
    cases = all_spoilings(workspace)
    by_field = [one for one in cases if not one.names_file]
    counts = check_all(workspace, [one for one in cases if one.names_file] + random.Random(2).sample(by_field, 2000))
    print(counts)
    assert counts["named"] > 2000


@pytest.mark.parametrize("file", ["job.json", "config.json", "views", "sets"])
def test_commands_name_what_they_leave_out(workspace: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    path = next(one for one in files_of(workspace) if file in (one.name, one.parent.name))
    path.write_text("[]")
    program().main(["sets", "list", "--workspace", str(workspace)], standalone_mode=False)
    assert path.name in capsys.readouterr().err


def test_a_run_whose_configuration_was_changed_is_left_out(workspace: Path) -> None:
    runs = Workspace(workspace).runs
    (run,) = runs.all("evaluate")
    path = run.folder / "config.json"
    path.write_text(path.read_text().replace("float32", "float64"))
    assert runs.all("evaluate") == []
    (error,) = runs.damaged()
    assert str(path) in error.what


def test_a_damaged_job_does_not_hide_the_others(workspace: Path) -> None:
    jobs = Workspace(workspace).jobs
    newest, other = jobs.all()
    (newest.folder / "exit.json").write_text('{"code": "0"}')
    assert newest.status() == "failed"
    assert "exit.json" in newest.error()
    (newest.folder / "job.json").write_text("null")
    assert jobs.all() == [other]
    assert [str(newest.folder / "job.json") in error.what for error in jobs.damaged()] == [True]


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # a hole
    with pytest.raises(UserError, match=r"job\.json is larger"):
        read_stored(path, dict)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ("1e400", Finite),
        ("NaN", Finite),
        ("1.0", Count),
        ("true", Count),
        (str(2**63), Count),
        ("-1", Count),
        ("1", Text),
    ],
)
def test_values_are_not_converted(tmp_path: Path, content: str, form: object) -> None:
    path = tmp_path / "one.json"
    path.write_text(f'{{"field": {content}}}')
    with pytest.raises(UserError, match="'field'"):
        read_stored(path, dict[str, form])  # type: ignore[valid-type]


def test_names_that_are_not_utf8_are_text(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(["\udcff"]))
    assert read_stored(path, list[Text]) == ["\udcff"]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["a", None], "text"),
        ([1, 2], "text"),
        (["1", "2"], "number"),
        ([True, False], "number"),
        ([1.0, float("nan")], "finite"),
        ([1.0, float("inf")], "finite"),
        ([1.5, 2.0], "integer"),
        ([0, 1], "flag"),
        (["a", "b"], "texts"),
        ([[1], [2]], "texts"),
    ],
)
def test_columns_of_another_kind_are_refused(tmp_path: Path, column: list[object], kind: str) -> None:
    path = tmp_path / "one.parquet"
    pd.DataFrame({"c": column}).to_parquet(path)
    with pytest.raises(UserError, match="'c'"):
        read_table(path, {"c": kind})  # type: ignore[dict-item]


def test_columns_of_their_kind_are_accepted(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"text": ["a"], "texts": [np.array(["a"])], "number": [np.nan], "finite": [1], "integer": [1], "flag": [True]}
    )
    check_table(table, {str(name): name for name in table}, tmp_path)  # type: ignore[misc]
