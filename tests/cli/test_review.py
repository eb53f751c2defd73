"""The review commands that read and write decisions, and their errors."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from core.checkpoints.model import Model, ModelSpec, save_model
from core.cli import review as review_commands
from core.decisions.log import Decision, Item
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.workspace import Workspace, create
from tests.cli.shell import Shell, workspace
from tests.ui.queue_fixture import queue_rows

ANN, BOB = ("--reviewer", "Ann"), ("--reviewer", "Bob")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose model was never trained; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("ready")
    write_folder(generate(TaskSettings(ways=3, shots=1, queries=2, count=3, heldout=2)), folder / "tasks")
    spec = ModelSpec(ways=3, filters=2)
    save_model(Model(spec, spec.init(0), {"command": "by hand"}), folder / "model")
    create(folder / "home" / "mine", folder / "tasks", folder / "model")
    return folder


@pytest.fixture
def shell(ready: Path, tmp_path: Path) -> Shell:
    shutil.copytree(ready, tmp_path / "copy")
    return Shell(tmp_path / "copy")


@pytest.fixture
def opened(shell: Shell) -> Workspace:
    return workspace(shell)


def review(shell: Shell, command: str, *args: str) -> list[str]:
    """Return the lines that a command prints."""
    return shell.done("review", command, "-w", "mine", *args).out


def refused(shell: Shell, command: str, *args: str) -> str:
    return shell.refused("review", command, "-w", "mine", *args)


def test_deciding_on_a_task_an_image_and_an_instance(shell: Shell, opened: Workspace) -> None:
    row = opened.project().tasks.train.rows.iloc[0]
    image, where = row["image_id"], ("--task", row["task_id"], "--role", row["role"])
    assert review(shell, "decide", "--as", "remove", "--task", row["task_id"], *ANN) == [
        f"task {row['task_id']}\tremove (other)"
    ]
    assert review(shell, "decide", "--as", "unsure", "--item", image, "--reason", "dark") == [f"image {image}\tunsure"]
    instance = f"{row['task_id']}/{row['role']}/{image}"
    printed = review(shell, "decide", "--as", "relabel", "--label", "7", "--item", image, *where)
    assert printed == [f"instance {instance}\trelabel to 7"]
    entries = list(opened.decisions.current().values())
    assert [entry.item.kind for entry in entries] == ["task", "image", "instance"]
    assert [entry.cause for entry in entries] == ["other", "label-error", "label-error"]
    assert [entry.reviewer for entry in entries] == ["Ann", "command line", "command line"]
    assert [entry.reason for entry in entries] == ["", "dark", ""]
    assert opened.changes().relabelled_instances == {(row["task_id"], row["role"], image, "7")}
    assert review(shell, "undo") == [f"undone\tinstance {instance}\trelabel to 7"]
    assert review(shell, "redo") == [f"redone\tinstance {instance}\trelabel to 7"]
    assert review(shell, "redo") == ["Nothing to redo."]
    assert review(shell, "undo", "--reviewer", "Cid") == ["Nothing to undo."]
    duplicate = ("decide", "--as", "remove", "--item", image, "--cause", "duplicate")
    assert review(shell, *duplicate) == [f"image {image}\tremove (duplicate)"]
    assert json.loads("\n".join(review(shell, "log", "--json")))[-1]["cause"] == "duplicate"
    assert "dull" in refused(shell, *duplicate[:-1], "dull")


def test_deciding_on_the_first_of_the_queue(shell: Shell, opened: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    row = opened.project().tasks.train.rows.iloc[0]
    whole = {"level": "image", "task_id": "", "role": "", "image_id": row["image_id"], "suggested": "3"}
    single = {**row[["task_id", "role", "image_id"]], "level": "instance", "suggested": "4"}
    table = queue_rows(pd.DataFrame([whole, single]))
    queue = opened.runs.get_or_compute("queue", {}, lambda work: work.write_table("items.parquet", table))
    monkeypatch.setattr(review_commands, "newest_queue_run", lambda _: queue)
    instance = f"instance {row['task_id']}/{row['role']}/{row['image_id']}"
    assert review(shell, "decide", "--as", "relabel", "--first", "2") == [
        f"image {row['image_id']}\trelabel to 3",
        f"{instance}\trelabel to 4",
    ]
    assert {entry.source for entry in opened.decisions.current().values()} == {queue.id}
    review(shell, "decide", "--as", "relabel", "--first", "2", "--label", "5")
    assert {entry.label for entry in opened.decisions.current().values()} == {5}
    assert review(shell, "decide", "--as", "keep", "--first", "1") == [f"image {row['image_id']}\tkeep"]
    assert "2 items" in refused(shell, "decide", "--as", "keep", "--first", "3")


def test_a_task_is_relabelled_with_the_suggestions_of_the_queue(
    shell: Shell, opened: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = opened.project().tasks.train.rows.iloc[0]
    where = {**row[["task_id", "role", "image_id"]], "level": "instance"}
    where["suggested"] = next(name for name in opened.project().images.class_names if name != row["class"])
    table = queue_rows(pd.DataFrame([where]).assign(suggested_probability=0.4))
    queue = opened.runs.get_or_compute("queue", {"task": True}, lambda work: work.write_table("items.parquet", table))
    monkeypatch.setattr(review_commands, "newest_queue_run", lambda _: queue)
    command = ("decide", "--as", "relabel", "--task", row["task_id"])
    (line,) = review(shell, *command)
    assert "0" in line
    relabelled = f"instance {row['task_id']}/{row['role']}/{row['image_id']}\trelabel to {where['suggested']}"
    assert review(shell, *command, "--least-probability", "0.4") == [relabelled]
    (line,) = review(shell, *command, "--least-probability", "0.4")
    assert "1" in line


def test_conflicts_are_shown_and_resolved(shell: Shell, opened: Workspace) -> None:
    first, second = opened.project().tasks.train.rows["image_id"].unique()[:2]
    review(shell, "decide", "--as", "remove", "--item", first, "--item", second, *ANN)
    assert review(shell, "conflicts") == []
    review(shell, "decide", "--as", "relabel", "--label", "2", "--item", first, *BOB)
    review(shell, "decide", "--as", "remove", "--item", second, *BOB)
    assert review(shell, "conflicts") == [f"image {first}\tAnn: remove (label error), Bob: relabel to 2"]
    assert review(shell, "agreement", "Ann", "Bob") == [
        "items decided by both for the same cause: 2, in agreement: 50.0%",
        "Cohen's kappa 0.00 [0.00, 0.00]",
        f"image {first}\tAnn: remove (label error)\tBob: relabel to 2",
    ]
    review(shell, "decide", "--as", "remove", "--item", first, "--seen", *ANN)
    assert review(shell, "conflicts") == []
    assert (
        review(shell, "agreement", "Ann", "Bob")[0]
        == "items decided by both for the same cause: 2, in agreement: 50.0%"
    )
    review(shell, "undo", *BOB)
    assert review(shell, "undo", *BOB) == [
        f"unchanged\timage {first}\tremove (label error), decided by Ann since",
    ]
    assert refused(shell, "agreement", "Ann", "Bob"), "no item was decided by both"


def test_agreement_on_everything(shell: Shell, opened: Workspace) -> None:
    image = opened.project().tasks.train.rows["image_id"][0]
    for who in (ANN, BOB):
        review(shell, "decide", "--as", "keep", "--item", image, *who)
    assert review(shell, "agreement", "Ann", "Bob") == [
        "items decided by both for the same cause: 1, in agreement: 100.0%",
        "Cohen's kappa is undefined, as both made the same decision on all items",
    ]


def test_the_log_as_a_table_and_as_json(shell: Shell, opened: Workspace) -> None:
    image = opened.project().tasks.train.rows["image_id"][0]
    relabel = ("decide", "--as", "relabel", "--label", "7", "--item", image)
    review(shell, *relabel, "--reason", "a tab\tand a \x1b[31mcolour", *ANN)
    opened.decisions.append([Decision(Item("image", image_id="gone\udc80"), "relabel", 99, reviewer="Bob")])
    review(shell, "undo", *ANN)
    header, *lines = [line.split("\t") for line in review(shell, "log")]
    assert header == ["number", "time", "group", "undoes", "by", "reviewer", "item", "decision", "reason", "source"]
    assert [[line[0], *line[2:]] for line in lines] == [
        ["1", "1", "", "Ann", "Ann", f"image {image}", "relabel to 7", "a tab\\tand a \\x1b[31mcolour", ""],
        ["2", "2", "", "Bob", "Bob", "image gone\\udc80", "relabel to class number 99", "", ""],
        ["3", "3", "1", "Ann", "Ann", f"image {image}", "clear", "", ""],
    ]
    entries = json.loads("\n".join(review(shell, "log", "--json")))
    assert [entry["class"] for entry in entries] == ["7", "class number 99", None]
    assert entries[0]["reason"] == "a tab\tand a \x1b[31mcolour"
    assert (entries[1]["image_id"], entries[2]["undoes"]) == ("gone\udc80", 1)


def test_snapshots_are_saved_compared_and_restored(shell: Shell, opened: Workspace) -> None:
    first, second = opened.project().tasks.train.rows["image_id"].unique()[:2]
    review(shell, "decide", "--as", "remove", "--item", first)
    (made,) = review(shell, "snapshot", "noon", "--note", "half done", *ANN)
    assert made.split("\t")[2:] == ["Ann", "after entry 1", "half done"]
    review(shell, "decide", "--as", "keep", "--item", first, "--item", second)
    review(shell, "snapshot", "2")
    assert review(shell, "snapshots")[0] == made
    assert review(shell, "diff", "noon") == [
        f"image {first}\tremove (label error)\tkeep",
        f"image {second}\tnothing\tkeep",
    ]
    assert review(shell, "diff", "noon", "2") == review(shell, "diff", "1", "3")  # the name goes before the number
    assert review(shell, "diff", "noon", "0") == [
        f"image {first}\tremove (label error)\tnothing"
    ]  # entry 0: the empty log
    assert review(shell, "restore", "noon") == ["decisions changed: 2"]
    assert [(item.image_id, entry.verdict) for item, entry in opened.decisions.current().items()] == [(first, "remove")]
    assert review(shell, "restore", "noon") == ["decisions changed: 0"]
    assert len(review(shell, "undo")) == 2
    assert "“noon”" in refused(shell, "snapshot", "noon")
    assert "noon, 2" in refused(shell, "restore", "night")
    assert "“night”" in refused(shell, "diff", "night")


def test_comments(shell: Shell, opened: Workspace) -> None:
    row = opened.project().tasks.train.rows.iloc[0]
    (line,) = review(shell, "comment", "looks like a 7\nto me", "--item", row["image_id"], *ANN)
    assert line.split("\t")[1:] == ["Ann", f"image {row['image_id']}", "looks like a 7\\nto me"]
    review(shell, "comment", "odd task", "--task", row["task_id"], *BOB)
    assert [line.split("\t")[3] for line in review(shell, "comments")] == ["looks like a 7\\nto me", "odd task"]
    assert review(shell, "comments", "--item", row["image_id"]) == [line]
    (comment,) = json.loads("\n".join(review(shell, "comments", "--task", row["task_id"], "--json")))
    assert (comment["reviewer"], comment["task_id"], comment["text"]) == ("Bob", row["task_id"], "odd task")
    assert "--item" in refused(shell, "comment", "hm")
    assert "'nothing'" in refused(shell, "comment", "hm", "--item", "nothing")
    assert refused(shell, "comment", " ", "--task", row["task_id"]), "an empty comment"


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["--as", "keep"], "--first"),
        (["--as", "keep", "--task", "t0", "--first", "1"], "--first"),
        (["--as", "drop", "--task", "train-0000"], "“drop”"),
        (["--as", "keep", "--item", "nothing"], "'nothing'"),
        (["--as", "keep", "--item", "a", "--task", "t"], "--role"),
        (["--as", "keep", "--role", "query"], "--role"),
        (["--as", "keep", "--item", "a", "--task", "t", "--role", "test"], "role='test'"),
        (["--as", "relabel", "--item", "a"], "“relabel”"),
        (["--as", "relabel", "--item", "a", "--label", "cow"], "'cow'"),
        (["--as", "keep", "--item", "a", "--label", "7"], "“relabel”"),
        (["--as", "relabel", "--task", "t", "--label", "7"], "label"),
        (["--as", "keep", "--task", "t0", "--reviewer", ""], "reviewer"),
    ],
)
def test_invalid_decisions_are_refused(shell: Shell, args: list[str], value: str) -> None:
    assert value in refused(shell, "decide", *args)
    assert workspace(shell).decisions.history() == []


def test_rows_that_are_left_out_are_named(shell: Shell, opened: Workspace) -> None:
    image = opened.project().tasks.train.rows["image_id"].iloc[0]
    assert "entries" not in shell.done("review", "decide", "-w", "mine", "--as", "remove", "--item", image).err
    with closing(sqlite3.connect(opened.decisions.path)) as connection, connection:
        connection.execute("INSERT INTO entries VALUES (99, 1, 'image', '', '', 'x', 'eat', NULL, '', '', '', '')")
    assert "row 99 of entries" in shell.done("review", "undo", "-w", "mine").err
    opened.decisions.path.write_bytes(b"")
    shell.refused("review", "undo", "-w", "mine")


def test_a_queue_is_built_and_shown(shell: Shell) -> None:
    assert "tasklens review queue" in refused(shell, "show")
    assert "slow: 'fast'" in refused(shell, "queue", "--slow", "fast")
    (folder,) = review(shell, "queue", "--rounds", "1", "--no-calibrate", "--device", "cpu")
    items = pd.read_parquet(Path(folder) / "items.parquet")
    lines = review(shell, "show", "--top", "3")
    assert len(lines) == 2 + 3
    assert not json.loads((Path(folder) / "summary.json").read_text())["calibrated"]
    assert lines[1].startswith("0 of")
    for line, item in zip(lines[2:], items.itertuples(), strict=False):
        assert line.split("\t")[1:4] == [item.image_id, f"given {item[6]}", f"suggested {item.suggested}"]
    image = items["image_id"][1]
    review(shell, "decide", "--as", "remove", "--item", image, "--cause", "duplicate")
    (shown,) = (line for line in review(shell, "show", "--cause", "duplicate", "--cause", "other") if image in line)
    assert shown.endswith("decided: remove (duplicate)")
    assert not any("decided: " in line for line in review(shell, "show", "--cause", "harmful"))
    assert "'rude'" in refused(shell, "show", "--cause", "rude").replace("“", "'").replace("”", "'")
